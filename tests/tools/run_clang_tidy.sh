#!/usr/bin/env bash
# clang-tidy over src/*.cpp with the checks of .clang-tidy. run_clang_tidy.sh BUILD_DIRECTORY (with compile_commands.json)
set -euo pipefail
cd "$(dirname "$0")/../.."
build="$1"
# GCC's own options and its omp.h, as clang sees them.
gcc_include="$(g++ -print-file-name=include)"
exec run-clang-tidy-16 -quiet -j "$(nproc)" -p "$build" -clang-tidy-binary clang-tidy-16 \
  -extra-arg=-Wno-unknown-warning-option -extra-arg="-idirafter$gcc_include" "^$PWD/src/.*\\.cpp\$"
