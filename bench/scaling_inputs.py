#!/usr/bin/env python3
"""Puts together what bench/scaling_model.py computes from: measured rates, and shares that `moeweld plan` gives to ranks of merges of full size.

    bench/scaling_inputs.py RATES.json OUT.json [--build build/release]

RATES.json: of bench/rank_speedup.py --rates linear,ties,fp8_pair,fp8_pair_block. The checkpoints are sparse files (tests/tools/make_sparse_checkpoint.py);
only headers are read. What is stated of a site is SITE below, or that of an OUT.json which is there already.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "tools"))
from make_sparse_checkpoint import write_checkpoint  # noqa: E402
from scaling_model import NODES  # noqa: E402

# Stated, not measured: a cluster of today with a file system of 100 GB/s.
SITE = {"ranks_per_node": 8, "threads_per_rank": 8, "thread_efficiency": 0.8, "memory_bytes_per_second_per_node": 200e9,
        "network_bytes_per_second_per_node": 12e9, "file_system_bytes_per_second": 100e9, "opens_per_second": 5000, "launch_seconds": 2,
        "launch_seconds_per_rank": 0.01, "publish_seconds": 1}
LINEAR = "merge_method: linear\nmodels:\n  - {model: %(a)s, parameters: {weight: 0.6}}\n  - {model: %(b)s, parameters: {weight: 0.4}}\n"
TIES = ("merge_method: ties\nbase_model: %(base)s\nmodels:\n  - {model: %(a)s, parameters: {weight: 0.6, density: 0.5}}\n"
        "  - {model: %(b)s, parameters: {weight: 0.4, density: 0.5}}\n")
PLAN_BYTES_PER_TENSOR = 600  # encoded; 593 for DeepSeek-V3 (bench_null_merge says it)
MERGES = [("Mixtral-8x22B, linear of two", "mixtral-8x22b", LINEAR, 2, "linear"),
          ("Mixtral-8x22B, ties of two onto a base", "mixtral-8x22b", TIES, 3, "ties"),
          ("DeepSeek-V3, linear of two, FP8 to FP8", "deepseek-v3-fp8", LINEAR + "out_dtype: fp8_block\n", 2, "fp8_pair_block"),
          ("DeepSeek-V3, linear of two, FP8 to BF16", "deepseek-v3-fp8", LINEAR, 2, "fp8_pair")]


def groups(values, size):
    return [sum(values[begin:begin + size]) for begin in range(0, len(values), size)]


def describe_shares(loads, ranks_per_node):
    """What ranks read and write: all, the one with the most, the node with the most."""
    read, written = [load["read_bytes"] for load in loads], [load["write_bytes"] for load in loads]
    return {"read_bytes": sum(read), "written_bytes": sum(written), "most_read_by_rank": max(read),
            "most_read_by_node": max(groups(read, ranks_per_node)), "most_written_by_node": max(groups(written, ranks_per_node))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rates")
    parser.add_argument("out")
    parser.add_argument("--build", default="build/release")
    options = parser.parse_args()
    moeweld = os.path.join(options.build, "src/app/moeweld")
    with open(options.rates, encoding="utf-8") as file:
        measured = json.load(file)
    site = SITE
    if os.path.exists(options.out):
        with open(options.out, encoding="utf-8") as file:
            site = json.load(file)["site"]
    result = {"schema": "moeweld.scaling/1", "measured": measured["measured"], "site": site, "merges": []}
    with tempfile.TemporaryDirectory() as work:
        for name, model, config, models, rate in MERGES:
            places = {which: os.path.join(work, model + "-" + which) for which in ("a", "b", "base")}
            for place in places.values():
                if not os.path.isdir(place):
                    write_checkpoint(model, place)
            path = os.path.join(work, "merge.yml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(config % places)
            shares, seconds = {}, []
            for nodes in NODES:
                command = [moeweld, "plan", path, "--ranks", str(nodes * site["ranks_per_node"]), "--json"]
                before = time.monotonic()
                plan = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                seconds.append(time.monotonic() - before)
                shares[str(nodes)] = describe_shares(plan["rank_loads"], site["ranks_per_node"])
            files = sum(file.endswith(".safetensors") for file in os.listdir(places["a"]))
            result["merges"].append({
                "name": name, "models": models, "input_files": models * files, "output_files": len(plan["output_files"]),
                "plan_seconds": round(min(seconds), 2), "plan_bytes": PLAN_BYTES_PER_TENSOR * len(plan["operations"]),
                "read_bytes_per_second_per_core": measured["rates"][rate]["input_bytes_per_second"], "shares": shares})
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
