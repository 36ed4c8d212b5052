"""Runs the commands that README.md and docs/*.md show: lines that begin with "$ " in fenced blocks, on small stand-ins for the quickstart's models.
Then every file of configs/ is merged.

A command whose shown output begins with "moeweld: cannot" must fail and say those lines; any other must succeed.  MOEWELD names the program.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
MPI_ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
                   "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_hwloc_base_binding_policy": "none"}

# What README.md's example of a mistake shows: line 14 and line 20 are wrong.
WRONG_TIES = """# a configuration with two mistakes
models:
  - model: quickstart/models/story
    parameters:
      density: 0.5
      weight: 0.5
  - model: quickstart/models/code
    parameters:
      density: 0.5
      weight: 0.3
  - model: quickstart/models/chat
    parameters:

      densty: 0.5
      weight: 0.2
merge_method: ties
base_model: quickstart/models/base
parameters:
  normalize: true
dype: bfloat16
"""


def commands():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for _, block in FENCE.findall(page.read_text(encoding="utf-8")):
            parts = re.split(r"^\$ (.*)\n", block, flags=re.M)
            for command, output in zip(parts[1::2], parts[2::2]):
                yield page.name, command, output


def all_commands():
    yield from commands()
    for config in sorted((ROOT / "configs").glob("*.yml")):
        yield config.name, f"moeweld merge configs/{config.name} merged/{config.stem} && moeweld verify merged/{config.stem}", ""


def prepare(where: Path, moeweld: Path):
    shutil.copytree(ROOT / "configs", where / "configs")
    (where / "ties.yml").write_text(WRONG_TIES)
    (where / "bin").mkdir()
    (where / "bin" / "moeweld").symlink_to(moeweld)
    for seed, name in enumerate(("base", "story", "code", "chat")):
        subprocess.run([sys.executable, ROOT / "tests/tools/tiny_models.py", where / "quickstart/models" / name, "--family", "llama", "--seed", str(seed), "--layers", "30",
                        "--hidden", "32", "--intermediate", "64", "--vocab", "20000", "--heads", "4", "--kv-heads", "2", "--tied"], check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    moeweld = Path(os.environ["MOEWELD"]).resolve()
    failed = total = 0
    with tempfile.TemporaryDirectory() as directory:
        where = Path(directory)
        prepare(where, moeweld)
        environment = {**os.environ, **MPI_ENVIRONMENT, "PATH": f"{where}/bin:{os.environ['PATH']}"}
        for page, command, shown in all_commands():
            total += 1
            result = subprocess.run(["bash", "-c", command], cwd=where, env=environment, capture_output=True, text=True, timeout=120)
            problems = []
            if shown.startswith("moeweld: cannot"):
                if result.returncode == 0:
                    problems.append("succeeded, the page says that it fails")
                problems += [f"does not say: {line}" for line in shown.strip().splitlines() if line not in result.stderr]
            elif result.returncode != 0:
                problems.append(f"failed with {result.returncode}")
            print(("FAILED" if problems else "passed"), f"{page}: {command}")
            if problems:
                failed += 1
                print("\n".join(problems), result.stdout, result.stderr, sep="\n")
    print(f"{total - failed} passed, {failed} failed")
    return 1 if failed or not total else 0


if __name__ == "__main__":
    sys.exit(main())
