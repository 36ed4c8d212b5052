#!/usr/bin/env python3
"""Plans merges of a huge checkpoint for 512 ranks: in seconds, in less than 1 GiB, and without leaving out a tensor.

plan_sparse_checkpoint_test.py MOEWELD MODEL
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from make_sparse_checkpoint import MODELS, size_bytes, write_checkpoint

RANKS = 512
MAX_SECONDS = 10
MAX_BYTES = 1 << 30
LINEAR = "models:\n  - {model: %s, parameters: {weight: 1}}\n  - {model: %s, parameters: {weight: 1}}\nmerge_method: linear\n"
TIES = ("models:\n  - {model: %s, parameters: {weight: 1, density: 0.5}}\n  - {model: %s, parameters: {weight: 1, density: 0.5}}\n"
        "merge_method: ties\nbase_model: %s\n")


def plan(moeweld, config):
    before = time.monotonic()
    result = subprocess.run([moeweld, "plan", config, "--ranks", str(RANKS), "--json", "--memory-limit", "4GiB"], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - before
    # The largest child so far; each of them must be small.
    peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert result.returncode == 0, result.stderr
    print("%s: %.2f s, %.0f MiB" % (os.path.basename(config), seconds, peak_bytes / (1 << 20)))
    assert seconds < MAX_SECONDS, "planning took %.1f s" % seconds
    assert peak_bytes < MAX_BYTES, "planning took %d bytes" % peak_bytes
    return json.loads(result.stdout)


def main():
    moeweld, model = sys.argv[1:]
    written = MODELS[model]()[1]
    # Block-scaled FP8 is written as bfloat16, without its scales.
    tensors = [(name, shape, "BF16" if dtype == "F8_E4M3" else dtype) for name, shape, dtype in written if not name.endswith("_scale_inv")]
    total = sum(size_bytes(shape, dtype) for _, shape, dtype in tensors)
    with tempfile.TemporaryDirectory() as work:
        models = [os.path.join(work, name) for name in ("a", "b", "base")]
        for directory in models:
            write_checkpoint(model, directory)
        configs = [("linear", LINEAR % tuple(models[:2])), ("aligned", LINEAR % tuple(models[:2]) + "align_experts: true\n"),
                   ("ties", TIES % tuple(models))]
        for name, text in configs[:2] if len(written) != len(tensors) else configs:
            config = os.path.join(work, name + ".yml")
            with open(config, "w", encoding="utf-8") as file:
                file.write(text)
            described = plan(moeweld, config)
            check(described, tensors, total)


def check(described, tensors, total):
    expected = {name: list(shape) for name, shape, _ in tensors}
    planned = {operation["tensor"]: operation["shape"] for operation in described["operations"]}
    missing, extra = sorted(set(expected) - set(planned)), sorted(set(planned) - set(expected))
    assert not missing and not extra, "missing %s, unexpected %s" % (missing[:5], extra[:5])
    assert planned == expected, "shapes differ"
    headers = described["output_bytes"] - sum(size_bytes(shape, dtype) for _, shape, dtype in tensors)
    assert 0 <= headers < total / 1000, "%d bytes out for %d bytes of tensors" % (described["output_bytes"], total)
    loads = [load["write_bytes"] for load in described["rank_loads"]]
    assert len(loads) == RANKS
    assert sum(loads) >= total, "the ranks write %d of %d bytes" % (sum(loads), total)
    assert max(loads) < 1.2 * total / RANKS, "one rank writes %d bytes, the mean is %d" % (max(loads), total // RANKS)


if __name__ == "__main__":
    main()
