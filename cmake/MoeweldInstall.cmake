# Installs the program, the libraries, the headers and a CMake package with the Find modules that Debian's packages need.
include(CMakePackageConfigHelpers)

set(moeweld_targets moeweld_options moeweld_core)
foreach(module IN LISTS MOEWELD_MODULES)
  if(TARGET moeweld_${module})
    list(APPEND moeweld_targets moeweld_${module})
  endif()
endforeach()
list(REMOVE_ITEM moeweld_targets moeweld_app)

set(moeweld_package_directory ${CMAKE_INSTALL_LIBDIR}/cmake/moeweld)
install(TARGETS ${moeweld_targets} EXPORT moeweldTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET moeweld)
  install(TARGETS moeweld RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/moeweld DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT moeweldTargets NAMESPACE moeweld:: DESTINATION ${moeweld_package_directory})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/moeweldConfig.cmake.in ${PROJECT_BINARY_DIR}/moeweldConfig.cmake
                              INSTALL_DESTINATION ${moeweld_package_directory})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/moeweldConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/moeweldConfig.cmake ${PROJECT_BINARY_DIR}/moeweldConfigVersion.cmake
              ${CMAKE_CURRENT_LIST_DIR}/MoeweldDependencies.cmake ${CMAKE_CURRENT_LIST_DIR}/FindOpenBLASTarget.cmake
              ${CMAKE_CURRENT_LIST_DIR}/FindRandom123.cmake ${CMAKE_CURRENT_LIST_DIR}/FindXxHash.cmake
              ${CMAKE_CURRENT_LIST_DIR}/FindPcre2.cmake ${CMAKE_CURRENT_LIST_DIR}/FindSentencePiece.cmake
              ${CMAKE_CURRENT_LIST_DIR}/FindUtf8proc.cmake
              ${CMAKE_CURRENT_LIST_DIR}/FindParallelHdf5.cmake
        DESTINATION ${moeweld_package_directory})
