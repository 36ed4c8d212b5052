# Untested: no Spack was at hand where this was written; only its syntax is checked (tests/tools/recipes_test.py).
#
#     spack repo add jobs/spack && spack install moeweld            # with the site's MPI: moeweld ^mpich, moeweld ^openmpi

from spack.package import *


class Moeweld(CMakePackage):
    """Merges very large LLM checkpoints on clusters: dense with dense, dense into a Mixture-of-Experts, MoE back to dense."""

    # Spack wants a place to fetch from; a checkout takes its own: spack dev-build moeweld@main
    homepage = "file:///usr/local/src/moeweld"
    git = "file:///usr/local/src/moeweld"

    license("Apache-2.0")

    version("main", branch="main")

    variant("tests", default=False, description="Build the tests")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi@3.1:")
    depends_on("hdf5@1.10.7: +mpi")
    depends_on("openblas threads=pthreads")
    depends_on("yaml-cpp@0.7:")
    depends_on("nlohmann-json")
    depends_on("cli11")
    depends_on("spdlog +fmt_external")
    depends_on("fmt")
    depends_on("xxhash")
    depends_on("highway@1.0.3:")
    depends_on("random123")
    depends_on("pcre2@10.40:")
    depends_on("utf8proc")
    depends_on("sentencepiece")
    depends_on("googletest +gmock", when="+tests")

    generator("ninja")

    conflicts("%gcc@:11", msg="C++20 ranges need GCC 12")

    def cmake_args(self):
        return [
            self.define_from_variant("MOEWELD_BUILD_TESTS", "tests"),
            self.define("MPI_CXX_COMPILER", self.spec["mpi"].mpicxx),
        ]
