#!/usr/bin/env bash
# clang-tidy over every source of src/ with the checks of .clang-tidy.
#   run_clang_tidy.sh configure BUILD_DIRECTORY    makes compile_commands.json, in which a translation unit has several sources: their
#                                                  headers are read once, which is an eighth of the time
#   run_clang_tidy.sh check BUILD_DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/../.."
build="$2"
case "$1" in
  configure) exec cmake --preset ci -B "$build" -DCMAKE_UNITY_BUILD=ON -DMOEWELD_BUILD_BENCH=OFF -DMOEWELD_BUILD_TESTS=OFF ;;
  check) ;;
  *) echo "run_clang_tidy.sh: '$1' is neither configure nor check." >&2; exit 2 ;;
esac
# The commands are GCC's: clang need not know every option in them. The one unit that includes sources is CMake's.
exec run-clang-tidy-16 -quiet -j "$(nproc)" -p "$build" -clang-tidy-binary clang-tidy-16 \
  -config-file=.clang-tidy -checks=-bugprone-suspicious-include -extra-arg=-Wno-unknown-warning-option
