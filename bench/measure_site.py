#!/usr/bin/env python3
"""Measures what one node of a site does per second, for `moeweld plan CONFIG --sbatch --site FILE`.

    bench/measure_site.py WORK OUT.json [--site NAME] [--size-gb 4] [--file-system-gb-s N] [--build build/release]

Run it in a job on one whole node, with WORK on the file system that models are on:

    srun --nodes=1 --ntasks=1 --exclusive python3 bench/measure_site.py /scratch/me/work site.json --site cedar

Reading and writing are those of plain threads past the page cache (bench/copy_floor.cpp), the best of several numbers of threads. What a core
combines per second is taken from traces of merges with one thread, the forward pass' operations from a trace of a check. The ceiling of the
whole file system cannot be seen from one node: give what jobs/scaling.sbatch levels off at, or the operators' figure; without
--file-system-gb-s eight times the node's is assumed, and the file says so.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time

import end_to_end

METHODS = ("linear", "slerp", "task_arithmetic", "ties")
CHECK_TOKENS = 256


def floor_gb_s(build, inputs, work, write_bytes, read):
    """Bytes per second of the best run that only reads (almost nothing is written), or only writes (almost nothing is read)."""
    best = 0
    for threads in (1, 2, 4, 8, 16):
        if threads > 2 * len(os.sched_getaffinity(0)):
            break
        command = [os.path.join(build, "bench/copy_floor"), "--out", os.path.join(work, "floor.bin"), "--write-bytes", str(write_bytes),
                   "--read", "direct", "--write", "direct", "--threads", str(threads), *inputs]
        line = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0])
        moved = sum(os.path.getsize(path) for path in inputs) if read else write_bytes
        best = max(best, moved / line["seconds"])
    return best


def span_seconds(trace, category, name=None):
    with open(trace, encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    return sum(event["dur"] for event in events if event.get("cat") == category and name in (None, event["name"])) / 1e6


def matrix_elements(directory):
    """Elements of the matrices that every token passes: all of two dimensions but the embedding and the head."""
    total = 0
    for path in end_to_end.weight_files(directory):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__" and len(tensor["shape"]) == 2 and "embed" not in name and "lm_head" not in name:
                total += tensor["shape"][0] * tensor["shape"][1]
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work")
    parser.add_argument("out")
    parser.add_argument("--site", default=platform.node())
    parser.add_argument("--size-gb", type=float, default=4)
    parser.add_argument("--file-system-gb-s", type=float, default=0)
    parser.add_argument("--build", default="build/release")
    options = parser.parse_args()
    work = os.path.join(os.path.abspath(options.work), "measure_site")
    moeweld = os.path.join(options.build, "src/app/moeweld")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    models = {name: os.path.join(work, name) for name in ("base", "one", "two")}
    for variant, name in enumerate(models):
        subprocess.run([os.path.join(options.build, "bench/bench_checkpoint"), models[name], "--size-gb", str(options.size_gb), "--variant",
                        str(variant)], check=True, stdout=sys.stderr)
    weights = [path for directory in models.values() for path in end_to_end.weight_files(directory)]
    small = os.path.join(work, "small")
    with open(small, "wb") as file:
        file.write(bytes(4096))
    read = floor_gb_s(options.build, weights, work, 4096, read=True)
    write = floor_gb_s(options.build, [small], work, int(options.size_gb * 1e9) // 4096 * 4096, read=False)

    trace, out = os.path.join(work, "trace.json"), os.path.join(work, "out")
    combine = {}
    for method in METHODS:
        config = os.path.join(work, method + ".yml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(end_to_end.CONFIGS[method] % models + "dtype: float32\nout_dtype: bfloat16\n")
        subprocess.run([moeweld, "merge", config, out, "--force", "-q", "--threads", "1", "--trace", trace], check=True)
        bytes_in = sum(os.path.getsize(path) for name in end_to_end.INPUTS[method] for path in end_to_end.weight_files(models[name]))
        combine[method] = bytes_in / span_seconds(trace, "combine")
    combine["default"] = min(combine.values())
    ids = os.path.join(work, "ids.txt")
    with open(ids, "w", encoding="utf-8") as file:
        file.write(json.dumps([37 * i % 16000 for i in range(CHECK_TOKENS)]) + "\n")
    subprocess.run([moeweld, "check", models["base"], "--token-ids", ids, "-q", "--threads", "1", "--trace", trace], check=True, stdout=sys.stderr)
    flops = 2 * matrix_elements(models["base"]) * CHECK_TOKENS / span_seconds(trace, "combine", "multiply")
    shutil.rmtree(work)

    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) * 1024
    result = {"schema": "moeweld.site/1", "site": options.site, "measured": time.strftime("%Y-%m-%d"),
              "cores_per_node": len(os.sched_getaffinity(0)), "memory_per_node_bytes": memory,
              "read_bytes_per_second_per_node": round(read), "write_bytes_per_second_per_node": round(write),
              "file_system_bytes_per_second": round(options.file_system_gb_s * 1e9 or 8 * max(read, write)),
              "file_system_is_assumed": not options.file_system_gb_s,
              "combine_bytes_per_second_per_core": {name: round(rate) for name, rate in combine.items()},
              "forward_flops_per_second_per_core": round(flops)}
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=2)
        file.write("\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
