#!/usr/bin/env bash
# Builds, installs and runs moeweld as a user without rights, against libraries in a prefix of that user: what a site's users do.
#   without_root.sh SOURCE
# The prefix holds copies of the system's packages. MPI, parallel HDF5 and the compiler stay the system's, as a site's modules are.
# Root becomes nobody for it. Ends with 77 where there are no packages to copy.
set -euo pipefail
source_tree="$1"

packages="libfmt-dev libspdlog-dev libcli11-dev nlohmann-json3-dev libyaml-cpp-dev libhwy-dev libxxhash-dev librandom123-dev libopenblas-pthread-dev
          libpcre2-dev libutf8proc-dev libsentencepiece-dev"

if ! command -v dpkg-query >/dev/null; then
  echo "skipped: no dpkg-query here, so nothing says which files a library consists of"
  exit 77
fi

work="$(mktemp -d)"  # not in the build tree, which another user need not be able to enter
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir "$work/source" "$work/home"
prefix="$work/home/libraries"
mkdir "$prefix"
copy() {
  mkdir -p "$prefix$(dirname "${1#/usr}")"
  cp -a "$1" "$prefix${1#/usr}"
}
# shellcheck disable=SC2086  # a list of package names
dpkg-query -L $packages | grep -E '^/usr/(include|lib|share/cmake)' | sort -u | while read -r path; do
  if [ -d "$path" ] && [ ! -L "$path" ]; then continue; fi
  copy "$path"
  case "$path" in *.so) ;; *) continue ;; esac
  # The library itself is another package's.
  for library in "$path" "$path".*; do
    copy "$library"
    copy "$(readlink -f "$library")"
  done
done
cp -r "$source_tree"/{CMakeLists.txt,cmake,include,src} "$work/source/"
cp "$source_tree/tests/tools/tiny_models.py" "$work/home/"
printf 'merge_method: linear\nmodels:\n  - {model: a, parameters: {weight: 1}}\n  - {model: b, parameters: {weight: 1}}\n' >"$work/home/linear.yml"

as_user=()
if [ "$(id -u)" -eq 0 ]; then
  chown -R 65534:65534 "$work"
  as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs)
fi
user() { ${as_user[@]+"${as_user[@]}"} env -i PATH="$PATH" HOME="$work/home" PYTHONDONTWRITEBYTECODE=1 "$@"; }
configure() {  # configure BUILD OPTION...
  local build="$1"
  shift
  user cmake -S "$work/source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS_RELEASE=-O0 -DNDEBUG" -DCMAKE_UNITY_BUILD=ON \
    -DMOEWELD_BUILD_TESTS=OFF "-DCMAKE_PREFIX_PATH=$prefix" "-DCMAKE_INSTALL_PREFIX=$work/home/moeweld" "$@" >"$build.log" 2>&1 ||
    { tail -30 "$build.log" >&2; exit 1; }
  for variable in fmt_DIR spdlog_DIR CLI11_DIR nlohmann_json_DIR yaml-cpp_DIR HWY_DIR XxHash_LIBRARY Random123_INCLUDE_DIR OpenBLAS_LIBRARY \
    Pcre2_LIBRARY Utf8proc_LIBRARY SentencePiece_LIBRARY; do
    grep -q "^$variable:[A-Z]*=$prefix/" "$build/CMakeCache.txt" ||
      { echo "$variable is not the prefix's: $(grep "^$variable:" "$build/CMakeCache.txt")" >&2; exit 1; }
  done
}
build() {  # build BUILD TARGET...
  local build="$1"
  shift
  user cmake --build "$build" -j "$(nproc)" --target "$@" >"$build.log" 2>&1 || { tail -30 "$build.log" >&2; exit 1; }
}

echo "Open MPI"
configure "$work/home/openmpi"
build "$work/home/openmpi" install
moeweld="$work/home/moeweld/bin/moeweld"
loaded="$(user ldd "$moeweld")"
for library in libyaml-cpp libxxhash libopenblas libsentencepiece libutf8proc libpcre2-8; do
  grep -q "$library[^ ]* => $prefix/" <<<"$loaded" || { printf "the installed program does not use the prefix's %s:\n%s\n" "$library" "$loaded" >&2; exit 1; }
done
cd "$work/home"
user python3 -c 'import tiny_models
for seed, name in enumerate("ab"): tiny_models.write_model(name, seed=seed)'
user "$moeweld" merge linear.yml out
user "$moeweld" verify out

if command -v mpicxx.mpich >/dev/null; then
  echo "MPICH: what names MPI"
  configure "$work/home/mpich" -DMPI_CXX_COMPILER="$(command -v mpicxx.mpich)"
  build "$work/home/mpich" moeweld_dist moeweld_hdf5
else
  echo "MPICH: not here, so nothing was compiled with it"
fi
