# Debian 12's packages: some carry a CMake package, some only pkg-config, some neither (see docs/decisions). Shared with the
# installed package, which includes this file.
find_package(Threads REQUIRED)
# The fuzz targets parse only, and clang's OpenMP is a package of its own.
if(NOT MOEWELD_BUILD_FUZZ)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  find_package(MPI REQUIRED COMPONENTS CXX)
endif()
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(HWY REQUIRED)
find_package(XxHash REQUIRED)
find_package(Random123 REQUIRED)
find_package(OpenBLASTarget REQUIRED)
