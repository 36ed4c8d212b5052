#!/usr/bin/env python3
"""What a second rank brings, against what the machine gives to a second process; and what one rank with one thread does per second.

    bench/rank_speedup.py [--methods ties,fp8_block] [--rates linear,ties,fp8_pair,fp8_pair_block] [--size-gb 1] [--rounds 4]
                          [--balance static] [--memory-limit 256MiB] [--cores shared] [--out FILE.json]

Real (random) models, read into the page cache before each run, a null writer (bench/null_merge.cpp --writes nothing), one thread that computes for each rank,
which has one core as under SLURM (--cores shared: the threads that read run on any, and one rank alone is not bound by its computing). In each round, one after the
other and in an order that changes: a merge by one rank; the same merge by two independent processes at the same time, the second of copies of the
models, since two that walk over the same pages would find them in each other's cache; by one job of two ranks. The speed-up of two processes,
t1 / ta + t1 / tb, is what the machine has to give: two virtual cores may be two threads of one. The speed-up of two ranks is t1 / t2, and the
figure is the second over the first, the median over the rounds.

--rates: input bytes per second of one rank with one thread, medians; --out writes both for bench/scaling_model.py. What this makes is deleted at the end.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

import end_to_end
from full_scale import MPI_ENVIRONMENT

# Beside end_to_end's.
FP8_PAIR = "merge_method: linear\nmodels:\n  - {model: %(fp8)s, parameters: {weight: 0.6}}\n  - {model: %(fp8_two)s, parameters: {weight: 0.4}}\n"
CONFIGS = {**end_to_end.CONFIGS, "fp8_block": end_to_end.CONFIGS["fp8_linear"] + "out_dtype: fp8_block\n", "fp8_pair": FP8_PAIR,
           "fp8_pair_block": FP8_PAIR + "out_dtype: fp8_block\n",
           "ties_float32": end_to_end.CONFIGS["ties"] + "out_dtype: float32\n"}  # arithmetic in float64: bound by nothing but computing


def prepare_memory(files):
    """The files in the page cache, and free memory that a virtual machine's host has given: what was never touched costs it a page fault each,
    ten times the guest's, and which of the runs would meet it is chance."""
    end_to_end.warm(files)  # a kernel may drop what lies unused for seconds
    del [b"\1" * (1 << 30)][:]


class Bench:
    def __init__(self, options, methods):
        self.options = options
        self.work = os.path.abspath(options.work)
        self.models = {name: os.path.join(self.work, name) for name in ("base", "one", "two", "fp8", "fp8_two")}
        self.program = os.path.join(os.path.abspath(options.build), "bench/bench_null_merge")
        if not options.reuse:
            shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work, exist_ok=True)
        for variant, name in enumerate(("base", "one", "two")):
            if os.path.isdir(self.models[name]):
                continue
            subprocess.run([os.path.join(options.build, "bench/bench_checkpoint"), self.models[name], "--size-gb", str(options.size_gb), "--variant",
                            str(variant)], check=True, stdout=sys.stderr)
        for source, name in (("one", "fp8"), ("two", "fp8_two")):
            if any("(%s)" % name in CONFIGS[method] for method in methods) and not os.path.isdir(self.models[name]):
                end_to_end.make_fp8(self.models[source], self.models[name])
        self.copies = {name: os.path.join(self.work, "copies", name) for name in self.models}
        for name, directory in self.models.items():
            if os.path.isdir(directory) and not os.path.isdir(self.copies[name]):
                shutil.copytree(directory, self.copies[name])
        for method in methods:
            for name, models in ((method, self.models), (method + "_copies", self.copies)):
                with open(os.path.join(self.work, name + ".yml"), "w", encoding="utf-8") as file:
                    file.write(CONFIGS[method] % models)

    def start(self, method, name, ranks=0, core=0):
        bound = self.options.cores == "own"
        if ranks:
            launcher = ["mpirun", *(["--map-by", "core", "--bind-to", "core"] if bound else ["--oversubscribe", "--bind-to", "none"]), "-n", str(ranks)]
        else:
            launcher = ["taskset", "-c", str(core)] if bound else []
        command = [*launcher, self.program, os.path.join(self.work, method + ".yml"), os.path.join(self.work, name), "--writes", "nothing", "--io",
                   "buffered", "--threads", "1", "--balance", self.options.balance, "--memory-limit", self.options.memory_limit]
        return subprocess.Popen(command, env={**MPI_ENVIRONMENT, **os.environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def end(process):
        text, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        return json.loads(text)

    def one(self, method):
        return self.end(self.start(method, "out"))

    def two_processes(self, method):
        return [self.end(process) for process in [self.start(method, "out_a"), self.start(method + "_copies", "out_b", core=1)]]

    def two_ranks(self, method):
        return self.end(self.start(method, "out", ranks=2))

    def round(self, method, number):
        kinds = ["one", "two_processes", "two_ranks"]
        kinds = kinds[number % 3:] + kinds[:number % 3]
        results = {}
        for kind in kinds:
            prepare_memory(end_to_end.weight_files(self.work))
            results[kind] = getattr(self, kind)(method)
        one, ranks = results["one"]["seconds"], results["two_ranks"]["seconds"]
        processes = sum(one / result["seconds"] for result in results["two_processes"])
        return {"method": method, "one_seconds": one, "process_seconds": [result["seconds"] for result in results["two_processes"]],
                "two_ranks_seconds": ranks, "process_speed_up": processes, "rank_speed_up": one / ranks, "fraction": one / ranks / processes}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="ties")
    parser.add_argument("--rates", default="")
    parser.add_argument("--size-gb", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--work", default="build/rank_speedup")
    parser.add_argument("--out")
    parser.add_argument("--balance", choices=("static", "dynamic"), default="dynamic")
    parser.add_argument("--cores", choices=("own", "shared"), default="own", help="a core for each rank and process, or all cores for all")
    parser.add_argument("--memory-limit", default="2GiB", help="of a rank; where untouched memory is dear, two ranks that touch twice as much pay twice")
    parser.add_argument("--reuse", action="store_true", help="the models that an earlier run with this flag left in --work; they are kept again")
    options = parser.parse_args()
    methods, rates = ([name for name in text.split(",") if name] for text in (options.methods, options.rates))
    bench = Bench(options, sorted({*methods, *rates}))
    result = {"measured": time.strftime("%Y-%m-%d"), "size_gb": options.size_gb, "speed_up": {}, "rates": {}}
    for method in methods:
        rounds = []
        for number in range(options.rounds):
            rounds.append(bench.round(method, number))
            print(json.dumps(rounds[-1]), flush=True)
        result["speed_up"][method] = {key: statistics.median(line[key] for line in rounds) for key in ("process_speed_up", "rank_speed_up", "fraction")}
        print("%s: two processes %.2f times one, two ranks %.2f: %.3f of it" % (
            method, *(result["speed_up"][method][key] for key in ("process_speed_up", "rank_speed_up", "fraction"))), flush=True)
    for method in rates:
        runs = []
        for _ in range(options.rounds):
            prepare_memory(end_to_end.weight_files(bench.work))
            runs.append(bench.one(method))
        seconds = statistics.median(run["seconds"] for run in runs)
        result["rates"][method] = {"seconds": seconds, "input_bytes_per_second": round(runs[0]["read_bytes"] / seconds),
                                   "output_bytes_per_second": round(runs[0]["written_bytes"] / seconds),
                                   "peak_memory_bytes": max(run["reports"][0]["peak_memory_bytes"] for run in runs)}
        print("%s: %s" % (method, json.dumps(result["rates"][method])), flush=True)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    if not options.reuse:
        shutil.rmtree(bench.work)


if __name__ == "__main__":
    main()
