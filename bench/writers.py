#!/usr/bin/env python3
"""One linear merge of two models with every writer: posix, mpiio, gather, and posix into HDF5, in turn, on several ranks.

    bench/writers.py [--size-gb 1] [--ranks 2] [--rounds 5]

Inputs are in the page cache, one thread for each rank, outputs are on stable storage when the clock stops. The clock is moeweld's own: from the first
thing that needs the output directory to its name. A writer's fraction is posix' time over its own, within one round; medians over the rounds. The
bytes are compared once: safetensors among each other, HDF5 through `moeweld diff`. What this makes is deleted at the end.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys

import end_to_end
from full_scale import MPI_ENVIRONMENT

WRITERS = {"posix": ["--writer", "posix"], "mpiio": ["--writer", "mpiio"], "gather": ["--writer", "gather"], "hdf5": ["--format", "hdf5"]}


def mpirun(ranks, *command):
    result = subprocess.run(["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *command], env={**MPI_ENVIRONMENT, **os.environ},
                            capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-gb", type=float, default=1)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--writers", default=",".join(WRITERS))
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--work", default="build/writers")
    parser.add_argument("--reuse", action="store_true", help="the models that an earlier run with this flag left in --work; they are kept again")
    options = parser.parse_args()
    work, moeweld = os.path.abspath(options.work), os.path.abspath(os.path.join(options.build, "src/app/moeweld"))
    if not options.reuse:
        shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work, exist_ok=True)
    models = {name: os.path.join(work, name) for name in ("one", "two")}
    for variant, directory in enumerate(models.values()):
        if not os.path.isdir(directory):
            subprocess.run([os.path.join(options.build, "bench/bench_checkpoint"), directory, "--size-gb", str(options.size_gb), "--variant",
                            str(variant + 1)], check=True, stdout=sys.stderr)
    config = os.path.join(work, "linear.yml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(end_to_end.CONFIGS["linear"] % models)
    end_to_end.warm([path for directory in models.values() for path in end_to_end.weight_files(directory)])
    writers = options.writers.split(",")
    seconds = {writer: [] for writer in writers}
    for number in range(options.rounds + 1):
        for writer in writers[number % len(writers):] + writers[:number % len(writers)]:
            out = os.path.join(work, "out_" + writer)
            shutil.rmtree(out, ignore_errors=True)
            os.sync()
            lines = mpirun(options.ranks, moeweld, "merge", config, out, "--threads", "1", "--log-format", "json", *WRITERS[writer]).splitlines()
            summary = next(line for line in map(json.loads, lines) if line.get("event") == "summary")
            if number > 0:  # the first finds the disk's blocks and the pages for the first time
                seconds[writer].append(summary["seconds"])
                print("%d %s: %.2f s" % (number, writer, summary["seconds"]), file=sys.stderr, flush=True)
    for writer in writers[1:]:
        command = [moeweld, "diff", os.path.join(work, "out_" + writers[0]), os.path.join(work, "out_" + writer), "-q"]
        assert subprocess.run(command, check=False).returncode == 0, writer + " wrote other values"
    written = sum(os.path.getsize(path) for path in end_to_end.weight_files(os.path.join(work, "out_" + writers[0])))
    print("| writer | seconds | output GB/s | throughput against %s | rounds |\n|---|---|---|---|---|" % writers[0])
    for writer in writers:
        fractions = [one / other for one, other in zip(seconds[writers[0]], seconds[writer])]
        median = statistics.median(seconds[writer])
        print("| %s | %.2f | %.2f | %.2f | %s |" % (writer, median, written / median / 1e9, statistics.median(fractions),
                                                 ", ".join("%.2f" % fraction for fraction in fractions)))
    for writer in writers:
        shutil.rmtree(os.path.join(work, "out_" + writer))
    if not options.reuse:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
