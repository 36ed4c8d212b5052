"""The Spack recipe and the Apptainer definition: syntax, and that they name what the build needs. Nothing here can build them."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = {"files", "files from build", "post", "environment", "test", "runscript", "labels", "help"}
SHELL_SECTIONS = {"post", "environment", "test", "runscript"}


def check_spack():
    tree = ast.parse((ROOT / "jobs/spack/packages/moeweld/package.py").read_text())
    package = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    assert package.name == "Moeweld" and package.bases[0].id == "CMakePackage"
    wanted = {call.args[0].value.split("@")[0].split()[0] for call in ast.walk(package)
              if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "depends_on"}
    # Every package that CMake looks for has a dependency.
    names = {"MPI": "mpi", "fmt": "fmt", "spdlog": "spdlog", "CLI11": "cli11", "nlohmann_json": "nlohmann-json", "yaml-cpp": "yaml-cpp", "HWY": "highway",
             "XxHash": "xxhash", "Random123": "random123", "OpenBLASTarget": "openblas", "Pcre2": "pcre2", "Utf8proc": "utf8proc",
             "SentencePiece": "sentencepiece", "ParallelHdf5": "hdf5", "Threads": None, "OpenMP": None}
    for found in re.findall(r"find_package\((\S+)", (ROOT / "cmake/MoeweldDependencies.cmake").read_text()):
        assert found in names, f"find_package({found}) has no entry in this test"
        assert names[found] is None or names[found] in wanted, f"the Spack recipe does not depend on {names[found]}"


def check_apptainer():
    lines = (ROOT / "jobs/moeweld.def").read_text().splitlines()
    section, body, stages = None, {}, []
    for line in lines + ["%end"]:
        if line.startswith("%") or re.match(r"Bootstrap: ", line):
            if section in SHELL_SECTIONS:
                subprocess.run(["bash", "-n"], input="\n".join(body[section]), text=True, check=True)
            section = line[1:].strip() if line.startswith("%") else None
            assert section in SECTIONS | {None, "end"}, f"unknown section %{section}"
            body[section] = []
        elif section is None:
            assert not line.strip() or re.match(r"#|(From|Stage): \S+$", line), f"outside of a section: {line}"
            stages += re.findall(r"^Stage: (\S+)", line)
        else:
            body[section].append(line)
    assert stages == ["build", "final"], stages


def check_untested_is_said():
    for path in ("jobs/spack/packages/moeweld/package.py", "jobs/moeweld.def"):
        assert (ROOT / path).read_text().startswith("# Untested: "), path


if __name__ == "__main__":
    for check in (check_spack, check_apptainer, check_untested_is_said):
        check()
    sys.exit(0)
