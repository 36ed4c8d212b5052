#!/usr/bin/env python3
"""Merges synthetic checkpoints with moeweld and compares the time with the copy floor and with mergekit, all in one run.

    bench/end_to_end.py [--size-gb 2] [--repeats 5] [--methods linear,slerp,ties,assembly] [--memory-limits 2GiB,256MiB] [--mergekit PYTHON]

The floor reads the same input files once and writes as many bytes as the merge writes, by plain threads: every combination of buffered and direct
is tried once, and the two best take part in every round; the faster one is that round's floor. A second read is counted with --floor-passes 2 only.
An assembly reads parts of its inputs, so its floor is a copy of a mixture that was assembled before: the same bytes in, the same out. So too extract
(one expert of a mixture of three); extract_all reads the whole mixture and writes three models, and so does its floor.
The inputs are in the page cache: they are read again before each timed run, since a kernel may drop what lies unused for seconds. Every output is on stable storage when the clock stops, the floor's too. What this makes is deleted at the end.
"""

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time

CONFIGS = {
    "linear": "merge_method: linear\nmodels:\n  - {model: %(one)s, parameters: {weight: 0.6}}\n  - {model: %(two)s, parameters: {weight: 0.4}}\n",
    "slerp": "merge_method: slerp\nbase_model: %(one)s\nmodels:\n  - {model: %(one)s}\n  - {model: %(two)s}\nparameters: {t: 0.4}\n",
    "task_arithmetic": "merge_method: task_arithmetic\nbase_model: %(base)s\nmodels:\n  - {model: %(one)s, parameters: {weight: 0.6}}\n"
                       "  - {model: %(two)s, parameters: {weight: 0.4}}\n",
    "ties": "merge_method: ties\nbase_model: %(base)s\nmodels:\n  - {model: %(one)s, parameters: {weight: 0.6, density: 0.5}}\n"
            "  - {model: %(two)s, parameters: {weight: 0.4, density: 0.5}}\n",
    # Router rows are random, so the whole is a copy.
    "assembly": "base_model: %(base)s\ngate_mode: random\nexperts:\n  - source_model: %(base)s\n  - source_model: %(one)s\n"
                "  - source_model: %(two)s\n",
    # Router rows from a forward pass of the base over eight prompts of 40 tokens.
    "hidden": "base_model: %(base)s\ngate_mode: hidden\nexperts:\n" + "".join(
        "  - {source_model: %%(%s)s, positive_token_ids: %s}\n" % (name, [[(1000 * expert + 97 * prompt + 31 * i) % 16000 for i in range(40)]
                                                                     for prompt in range(4)])
        for expert, name in enumerate(("one", "two"))),
}
CONFIGS["fp8"] = "merge_method: passthrough\nmodels:\n  - {model: %(fp8)s}\n"
CONFIGS["fp8_linear"] = "merge_method: linear\nmodels:\n  - {model: %(fp8)s, parameters: {weight: 0.6}}\n  - {model: %(two)s, parameters: {weight: 0.4}}\n"
ASSEMBLIES = ("assembly", "hidden")
EXTRACTIONS = {"extract": ["--expert", "1"], "extract_all": ["--all"]}
# What each writes in BF16; an assembly has one type.
DTYPES = {method: "dtype: bfloat16\n" for method in ASSEMBLIES}
INPUTS = {"extract": ("base", "one", "two"), "extract_all": ("base", "one", "two"), "fp8": ("fp8",), "fp8_linear": ("fp8", "two"), "assembly": ("base", "one", "two"), "hidden": ("base", "one", "two"), "linear": ("one", "two"), "slerp": ("one", "two"), "task_arithmetic": ("base", "one", "two"), "ties": ("base", "one", "two")}


def weight_files(directory):
    """Of a model, or of all models below the directory."""
    return sorted(os.path.join(place, name) for place, _, names in os.walk(directory) for name in names if name.endswith(".safetensors"))


def warm(files):
    """Into the page cache."""
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def make_fp8(source, target):
    """A model of the shapes of `source` whose layers' matrices are random codes of E4M3 with a scale for 128 x 128 of them."""
    os.makedirs(target)
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    with open(os.path.join(target, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    # No NaN among them.
    codes = os.urandom(1 << 24).translate(bytes(code if code & 0x7F != 0x7F else 0 for code in range(256)))
    for path in weight_files(source):
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            start = file.tell()
            entries, offset = {}, 0
            parts = []
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                first, last = entry["data_offsets"]
                if name.endswith("_proj.weight"):
                    scales = [-(-extent // 128) for extent in entry["shape"]]
                    parts.append((name, "F8_E4M3", entry["shape"], None, (last - first) // 2))
                    parts.append((name + "_scale_inv", "F32", scales, struct.pack("<f", 2e-4) * (scales[0] * scales[1]), 4 * scales[0] * scales[1]))
                else:
                    parts.append((name, entry["dtype"], entry["shape"], (start + first, last - first), last - first))
            for name, dtype, shape, _, size in parts:
                entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
                offset += size
            text = json.dumps(entries).encode()
            text += b" " * (-(len(text) + 8) % 4096)
            with open(os.path.join(target, os.path.basename(path)), "wb") as out:
                out.write(struct.pack("<Q", len(text)) + text)
                for name, dtype, shape, content, size in parts:
                    if content is None:
                        for done in range(0, size, len(codes)):
                            out.write(codes[:size - done])
                    elif isinstance(content, bytes):
                        out.write(content)
                    else:
                        file.seek(content[0])
                        out.write(file.read(content[1]))


class Bench:
    def __init__(self, options):
        self.options = options
        self.work = os.path.abspath(options.work)
        self.models = {name: os.path.join(self.work, name) for name in ("base", "one", "two", "fp8")}
        self.out = os.path.join(self.work, "out")
        self.assembled = os.path.join(self.work, "assembled")  # or extracted: what the floor copies
        self.mixture = os.path.join(self.work, "mixture")

    def program(self, name):
        places = {"moeweld": "src/app/moeweld", "copy_floor": "bench/copy_floor", "bench_checkpoint": "bench/bench_checkpoint"}
        return os.path.join(self.options.build, places[name])

    def make_models(self, needed):
        for variant, name in enumerate(("base", "one", "two")):
            if name in needed or (name == "one" and "fp8" in needed):
                subprocess.run([self.program("bench_checkpoint"), self.models[name], "--family", self.options.family,
                                "--size-gb", str(self.options.size_gb), "--variant", str(variant)], check=True, stdout=sys.stderr)

        if "fp8" in needed:
            make_fp8(self.models["one"], self.models["fp8"])

    def floor_inputs(self, method):
        if method in ASSEMBLIES or method == "extract":
            return weight_files(self.assembled)
        if method == "extract_all":
            return weight_files(self.mixture)
        return [path for name in INPUTS[method] for path in weight_files(self.models[name])]

    def floor(self, method, modes=()):
        inputs = self.floor_inputs(method)
        written = weight_files(self.assembled) if method in ASSEMBLIES or method in EXTRACTIONS else weight_files(self.models["one"])
        command = [self.program("copy_floor"), "--out", os.path.join(self.work, "floor.bin"), "--passes", str(self.options.floor_passes),
                   "--write-bytes", str(sum(os.path.getsize(path) for path in written))]
        lines = []
        for mode in modes or [None]:
            extra = [] if mode is None else ["--read", mode["read"], "--write", mode["write"], "--threads", str(mode["threads"])]
            output = subprocess.run(command + extra + inputs, check=True, capture_output=True, text=True).stdout
            lines += [json.loads(line) for line in output.splitlines()]
        return sorted(lines, key=lambda line: line["seconds"])

    def timed(self, command):
        shutil.rmtree(self.out, ignore_errors=True)
        os.sync()
        start = time.monotonic()
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
        if result.returncode != 0:
            sys.exit("%s failed:\n%s%s" % (" ".join(command), result.stdout, result.stderr))
        return seconds, result.stdout + result.stderr

    def moeweld(self, work, memory_limit):
        launcher = []
        if self.options.ranks > 1:
            launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(self.options.ranks)]
        seconds, output = self.timed(launcher + [self.program("moeweld"), *work, "--memory-limit", memory_limit, "--log-format", "json"] + self.options.moeweld_option)
        summary = {}
        for line in output.splitlines():
            if line.startswith("{") and json.loads(line).get("event") == "summary":
                summary = json.loads(line)
        return seconds, summary["peak_memory_bytes"]

    def mergekit(self, config):
        seconds, output = self.timed([self.options.mergekit, os.path.join(os.path.dirname(os.path.abspath(__file__)), "run_mergekit.py"), config, self.out])
        without = [float(line.split()[1]) for line in output.splitlines() if line.startswith("seconds_without_imports")]
        peak = [int(line.split()[1]) for line in output.splitlines() if line.startswith("peak_memory_bytes")]
        return seconds, without[0], peak[0]

    def run_method(self, method):
        config = os.path.join(self.work, method + ".yml")
        with open(config, "w", encoding="utf-8") as file:
            source = "assembly" if method in EXTRACTIONS else method
            file.write(CONFIGS[source] % self.models + DTYPES.get(source, "dtype: float32\nout_dtype: bfloat16\n"))
        work = ["merge", config, self.out]
        if method in EXTRACTIONS:
            subprocess.run([self.program("moeweld"), "merge", config, self.mixture, "-q"], check=True)
            subprocess.run([self.program("moeweld"), "extract", self.mixture, self.assembled, "-q", *EXTRACTIONS[method]], check=True)
            work = ["extract", self.mixture, self.out, *EXTRACTIONS[method]]
        if method in ASSEMBLIES:
            subprocess.run([self.program("moeweld"), "merge", config, self.assembled, "-q"], check=True)
        read = weight_files(self.mixture) if method in EXTRACTIONS else [path for name in INPUTS[method] for path in weight_files(self.models[name])]
        warm(self.floor_inputs(method))
        modes = self.floor(method)[:2]
        limits = self.options.memory_limits.split(",")
        floors, times, peaks, peer = [], {limit: [] for limit in limits}, {limit: 0 for limit in limits}, []
        for repeat in range(self.options.repeats):
            warm(self.floor_inputs(method))
            floors.append(self.floor(method, modes)[0]["seconds"])
            for limit in limits:
                # A kernel may have dropped what lay unused; the floor's files were just read.
                warm(read)
                seconds, peak = self.moeweld(work, limit)
                times[limit].append(seconds)
                peaks[limit] = max(peaks[limit], peak)
            if self.options.mergekit and repeat < self.options.mergekit_repeats:
                peer.append(self.mergekit(config))
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(self.assembled, ignore_errors=True)
        shutil.rmtree(self.mixture, ignore_errors=True)
        return {"method": method, "floor_mode": modes[0], "floor_seconds": floors, "moeweld_seconds": times, "peak_memory_bytes": peaks,
                "mergekit_seconds": [both for both, _, _ in peer], "mergekit_seconds_without_imports": [without for _, without, _ in peer],
                "mergekit_peak_memory_bytes": max([peak for _, _, peak in peer], default=0)}


def describe(result):
    floor = statistics.median(result["floor_seconds"])
    mode = result["floor_mode"]
    lines = ["%s: floor %.2f s (%s read, %s write, %d threads)" % (result["method"], floor, mode["read"], mode["write"], mode["threads"])]
    for limit, times in result["moeweld_seconds"].items():
        ours = statistics.median(times)
        # Neighbours in time are compared: the disk's mood changes between rounds.
        fraction = statistics.median(f / t for f, t in zip(result["floor_seconds"], times))
        text = "  moeweld, --memory-limit %s: %.2f s, %.2f of the floor's throughput, peak %.0f MiB per rank" % (
            limit, ours, fraction, result["peak_memory_bytes"][limit] / (1 << 20))
        if result["mergekit_seconds"]:
            text += "; %.1f times as fast as mergekit, %.1f without its imports" % (
                statistics.median(result["mergekit_seconds"]) / ours, statistics.median(result["mergekit_seconds_without_imports"]) / ours)
        lines.append(text)
    if result["mergekit_seconds"]:
        lines.append("  mergekit: %.1f s, %.1f s without its imports, peak %.0f MiB" % (
            statistics.median(result["mergekit_seconds"]), statistics.median(result["mergekit_seconds_without_imports"]),
            result["mergekit_peak_memory_bytes"] / (1 << 20)))
    return "\n".join(lines)


def main():
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(here, "build", "release"), help="build directory (preset release)")
    parser.add_argument("--work", default=os.path.join(here, "build", "bench-work"), help="where models and outputs are made; its disk is measured")
    parser.add_argument("--family", default="llama")
    parser.add_argument("--size-gb", type=float, default=2.0)
    parser.add_argument("--methods", default="linear,slerp,ties")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--memory-limits", default="2GiB,256MiB")
    parser.add_argument("--floor-passes", type=int, default=1)
    parser.add_argument("--moeweld-option", action="append", default=[], help="passed on, e.g. --moeweld-option=--threads=2")
    parser.add_argument("--mergekit", metavar="PYTHON", help="a Python that has mergekit")
    parser.add_argument("--mergekit-repeats", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="also writes every single time")
    options = parser.parse_args()
    methods = options.methods.split(",")
    unknown = [method for method in methods if method not in INPUTS]
    if unknown:
        parser.error("unknown method %s; there are %s" % (unknown[0], ", ".join(INPUTS)))
    os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_mpi_yield_when_idle="1")
    bench = Bench(options)
    os.makedirs(bench.work, exist_ok=True)
    results = []
    try:
        bench.make_models({name for method in methods for name in INPUTS[method]})
        for method in methods:
            results.append(bench.run_method(method))
            print(describe(results[-1]), flush=True)
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
