#!/usr/bin/env bash
# clang-tidy over src/*.cpp with the checks of .clang-tidy. run_clang_tidy.sh BUILD_DIRECTORY (with compile_commands.json)
set -euo pipefail
cd "$(dirname "$0")/../.."
build="$1"
# The commands are GCC's: clang need not know every option in them.
exec run-clang-tidy-16 -quiet -j "$(nproc)" -p "$build" -clang-tidy-binary clang-tidy-16 \
  -extra-arg=-Wno-unknown-warning-option "^$PWD/src/.*\\.cpp\$"
