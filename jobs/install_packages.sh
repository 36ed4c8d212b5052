#!/usr/bin/env bash
# Installs the Debian packages that are missing, as root or through sudo. Safe to run twice; says nothing when nothing is missing.
#   jobs/install_packages.sh build | test | python ...    (several sets at once)
set -euo pipefail

build="cmake ninja-build g++ pkg-config libopenmpi-dev openmpi-bin libhdf5-openmpi-dev libopenblas-pthread-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev
       libspdlog-dev libfmt-dev libxxhash-dev libhwy-dev librandom123-dev libgtest-dev libgmock-dev libbenchmark-dev
       libpcre2-dev libutf8proc-dev libsentencepiece-dev"
python="python3 python3-venv ca-certificates"
test="$python ccache clang-16 libclang-rt-16-dev clang-format-16 clang-tidy-16 libomp-16-dev time git mpich libmpich-dev libhdf5-mpich-dev
      slurm-wlm slurm-client munge libpmix2 iproute2 util-linux"

wanted=""
for set_name in "$@"; do
  case "$set_name" in
    build) wanted="$wanted $build" ;;
    python) wanted="$wanted $python" ;;
    test) wanted="$wanted $test" ;;
    *) echo "install_packages.sh: no set of packages is called '$set_name'; there are build, python and test." >&2; exit 2 ;;
  esac
done

missing=""
for package in $wanted; do
  if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" != installed ]; then missing="$missing $package"; fi
done
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "install_packages.sh: these packages are missing and neither root nor sudo is there to install them:$missing" >&2
    exit 1
  fi
  as_root="sudo"
fi
echo "Installing:$missing"
$as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
# shellcheck disable=SC2086  # a list of package names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
