#!/usr/bin/env python3
"""bench_null_merge writes what moeweld merge writes where it says so, and never a directory that looks like a model where it does not.

null_merge_test.py BUILD MOEWELD
"""

import os
import subprocess
import sys
import tempfile

CONFIG = "merge_method: linear\nmodels:\n  - {model: a, parameters: {weight: 0.6}}\n  - {model: b, parameters: {weight: 0.4}}\n"


def main():
    build, moeweld = (os.path.abspath(path) for path in sys.argv[1:])
    null_merge = os.path.join(build, "bench/bench_null_merge")

    def run(*command):
        result = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    with tempfile.TemporaryDirectory() as work:
        for variant, name in enumerate(("a", "b")):
            run(os.path.join(build, "bench/bench_checkpoint"), os.path.join(work, name), "--size-gb", "0.02", "--variant", str(variant))
        with open(os.path.join(work, "merge.yml"), "w", encoding="utf-8") as file:
            file.write(CONFIG)
        run(moeweld, "merge", "merge.yml", "real", "--threads", "1", "--quiet")
        run(null_merge, "merge.yml", "holes", "--writes", "holes")
        run(moeweld, "verify", "holes")
        names = sorted(name for name in os.listdir(os.path.join(work, "real")) if name.endswith(".safetensors"))
        assert names == sorted(name for name in os.listdir(os.path.join(work, "holes")) if name.endswith(".safetensors"))
        for name in names:
            with open(os.path.join(work, "real", name), "rb") as real, open(os.path.join(work, "holes", name), "rb") as holes:
                assert real.read() == holes.read(), name + " differs"
        run(null_merge, "merge.yml", "nothing", "--writes", "nothing")
        assert not os.path.exists(os.path.join(work, "nothing")) and not os.path.exists(os.path.join(work, "nothing.partial"))
        kept = os.path.join(work, "nothing.discarded")
        assert sum(os.stat(os.path.join(kept, name)).st_blocks for name in os.listdir(kept) if name.endswith(".safetensors")) == 0


if __name__ == "__main__":
    main()
