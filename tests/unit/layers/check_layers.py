"""Checks that no include runs upward, that mpi.h stays in dist and hdf5, and that only app prints or exits."""

import re
import sys
from pathlib import Path

LAYERS = [["base"], ["storage"], ["formats", "merge"], ["tokenizer", "model", "config"], ["plan"], ["infer", "align"], ["exec"], ["verify"], ["dist"], ["hdf5"], ["app"]]
RANK = {module: rank for rank, modules in enumerate(LAYERS) for module in modules}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')


def module_of_include(path: str) -> str | None:
    parts = path.removeprefix("moeweld/").split("/")
    return parts[0] if len(parts) > 1 and parts[0] in RANK else None


def problems_of(root: Path):
    files = [f for top in ("include/moeweld", "src") for f in sorted((root / top).rglob("*")) if f.suffix in (".h", ".cpp")]
    if len(files) < 50:
        yield f"only {len(files)} files were found below {root}; is this the source tree?"
    for file in files:
        relative = file.relative_to(root)
        module = relative.parts[2] if relative.parts[0] == "include" else relative.parts[1]
        if module not in RANK:
            yield f"{relative}: '{module}' is no module of the layer list"
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{relative}:{number}"
            if found := INCLUDE.match(line):
                included = found.group(1)
                other = module_of_include(included)
                if other and other != module and RANK[other] >= RANK[module]:
                    yield f"{where}: {module} includes {other}, which is not below it"
                if relative.parts[0] == "include" and other and not included.startswith("moeweld/"):
                    yield f"{where}: a public header includes a private one"
                if other and other != module and not included.startswith("moeweld/"):
                    yield f"{where}: {module} includes a private header of {other}"
                if included == "mpi.h" and module not in ("dist", "hdf5"):
                    yield f"{where}: mpi.h outside dist and hdf5"
                if included == "hdf5.h" and module != "hdf5":
                    yield f"{where}: hdf5.h outside hdf5"
                if re.match(r"(spdlog|CLI|fmt)/", included) and module != "app":
                    yield f"{where}: {included} outside app"
            code = line.split("//")[0]
            if module != "app" and re.search(r"std::(cout|cerr)|(?<![a-z_:])f?printf\(|(?<![_a-zA-Z:])exit\(", code):
                yield f"{where}: prints or exits outside app"


def main() -> int:
    found = list(problems_of(Path(sys.argv[1])))
    print("\n".join(found) or "includes run downward")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
