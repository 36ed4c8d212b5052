# One static library per module. A module may only name modules below it in LINK, which is how the linker keeps the layers;
# tests/unit/layers checks the includes as well.

add_library(moeweld_options INTERFACE)
set_target_properties(moeweld_options PROPERTIES EXPORT_NAME options)
target_compile_features(moeweld_options INTERFACE cxx_std_20)
# Same bytes on every processor: no contraction to fused multiply-add, no reassociation.
target_compile_options(moeweld_options INTERFACE $<BUILD_INTERFACE:-ffp-contract=off>)

add_library(moeweld_warnings INTERFACE)
target_compile_options(moeweld_warnings INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wno-missing-field-initializers -Wnon-virtual-dtor -Woverloaded-virtual
                                                  # GCC 12 warns wrongly of "literal" + std::string (GCC bug 105651).
                                                  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
                                                  $<$<BOOL:${MOEWELD_WARNINGS_AS_ERRORS}>:-Werror>)

if(MOEWELD_SANITIZE)
  add_compile_options(-fsanitize=${MOEWELD_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${MOEWELD_SANITIZE})
endif()

# moeweld_module(NAME SOURCES a.cpp b.cpp [ALONE c.cpp] LINK lower modules and libraries PRIVATE_LINK libraries)
# ALONE are sources that no other may share a translation unit with where CMAKE_UNITY_BUILD is on.
function(moeweld_module name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ALONE;LINK;PRIVATE_LINK" ${ARGN})
  add_library(moeweld_${name} STATIC ${ARG_SOURCES} ${ARG_ALONE})
  set_source_files_properties(${ARG_ALONE} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  add_library(moeweld::${name} ALIAS moeweld_${name})
  set_target_properties(moeweld_${name} PROPERTIES EXPORT_NAME ${name} POSITION_INDEPENDENT_CODE ON)
  target_include_directories(moeweld_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                                    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
                                             PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(moeweld_${name} PUBLIC moeweld_options ${ARG_LINK} PRIVATE ${ARG_PRIVATE_LINK} $<BUILD_INTERFACE:moeweld_warnings>)
endfunction()

# moeweld_unit_test(MODULE SOURCES a_test.cpp LINK libraries [SHARDS n]): one GoogleTest program, unit_<MODULE>, label unit; with SHARDS
# CTest runs it in n parts, unit_<MODULE>_<part>, which may run beside each other. The target unit_tests builds all of them.
function(moeweld_unit_test name)
  cmake_parse_arguments(ARG "" "SHARDS" "SOURCES;LINK" ${ARGN})
  add_executable(unit_${name} ${ARG_SOURCES})
  target_include_directories(unit_${name} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(unit_${name} PRIVATE ${ARG_LINK} moeweld_warnings GTest::gmock GTest::gtest_main)
  if(NOT TARGET unit_tests)
    add_custom_target(unit_tests)
  endif()
  add_dependencies(unit_tests unit_${name})
  if(NOT ARG_SHARDS)
    add_test(NAME unit_${name} COMMAND unit_${name})
    set_tests_properties(unit_${name} PROPERTIES LABELS unit TIMEOUT 1200)
    return()
  endif()
  foreach(part RANGE 1 ${ARG_SHARDS})
    math(EXPR index "${part} - 1")
    add_test(NAME unit_${name}_${part} COMMAND unit_${name})
    set_tests_properties(unit_${name}_${part} PROPERTIES LABELS unit TIMEOUT 1200
                                                         ENVIRONMENT "GTEST_TOTAL_SHARDS=${ARG_SHARDS};GTEST_SHARD_INDEX=${index}")
  endforeach()
endfunction()
