#!/usr/bin/env python3
"""Merges two checkpoints of full size whose tensors are zeros (files with one hole), interrupts it, and continues it on another number of ranks.

    bench/full_scale.py BUILD MODEL [--work DIR] [--ranks 8] [--resume-ranks 5] [--interrupt-at 0.4] [--out-dtype fp8_block] ...

MODEL is one of tests/tools/make_sparse_checkpoint.py. What is read are the real files at their real offsets, zeros; what is written are zeros, which
become holes again (bench/null_merge.cpp). Planned, scheduled, combined, digested and journalled is as in any merge, so offsets, counts, numbers of
files and memory are those of the real thing. Checked at the end, from what the input's list of tensors says alone:
- every tensor is in the output, with its shape and type, each file without gaps and of the size that its header says;
- the digests in the manifest are those of files of such a header and zeros (and the smallest scale, where blocks of FP8 are zeros);
- nothing but headers and scales was written; no rank was above the memory limit; after the interruption only what was not durable was done again.
"""

import argparse
import ctypes
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "tools"))
from make_sparse_checkpoint import MODELS, size_bytes, write_checkpoint  # noqa: E402

CHUNK = 1 << 20
SMALLEST_NORMAL = b"\0\0\x80\0"  # what a block of zeros has as its scale
CONFIG = ("models:\n  - {model: %s, parameters: {weight: 0.6}}\n  - {model: %s, parameters: {weight: 0.4}}\nmerge_method: linear\n")
INTERRUPTED = 75
MPI_ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_mpi_yield_when_idle": "1",
                   "OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}


class _Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


_xxhash = ctypes.CDLL("libxxhash.so.0")
_xxhash.XXH3_128bits.restype = _Hash128
_xxhash.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


def digest(data):
    """XXH3-128, canonical: the high half first, big-endian."""
    value = _xxhash.XXH3_128bits(bytes(data), len(data))
    return struct.pack(">QQ", value.high, value.low)


def scale_pattern(begin, end, first):
    """Bytes [begin, end) of a file in which scales lie from `first` on."""
    skew = (begin - first) % 4
    return (SMALLEST_NORMAL * ((end - begin) // 4 + 2))[skew:skew + end - begin]


def file_digest(header_bytes, size, scales):
    """Digest of a file that is this header, zeros, and scales in these ranges."""
    zero = digest(bytes(CHUNK))
    chunks = [zero] * (-(-size // CHUNK))
    if size % CHUNK:
        chunks[-1] = digest(bytes(size % CHUNK))
    touched = {}  # chunk: its bytes
    ranges = [(0, len(header_bytes), None)] + [(begin, end, begin) for begin, end in scales]
    for begin, end, first in ranges:
        for chunk in range(begin // CHUNK, -(-end // CHUNK)):
            start = chunk * CHUNK
            data = touched.setdefault(chunk, bytearray(min(CHUNK, size - start)))
            low, high = max(begin, start), min(end, start + len(data))
            data[low - start:high - start] = header_bytes[low:high] if first is None else scale_pattern(low, high, first)
    for chunk, data in touched.items():
        chunks[chunk] = digest(data)
    return digest(b"".join(chunks))


def expected_tensors(model, out_dtype):
    tensors = MODELS[model]()[1]
    if out_dtype == "fp8_block":
        return {name: (dtype, list(shape)) for name, shape, dtype in tensors}
    return {name: ("BF16" if dtype == "F8_E4M3" else dtype, list(shape)) for name, shape, dtype in tensors if not name.endswith("_scale_inv")}


def check_output(out, model, out_dtype):
    """Returns what there is: files, tensors, bytes, elements of the largest tensor, disk space."""
    expected = expected_tensors(model, out_dtype)
    with open(os.path.join(out, "moeweld_manifest.json"), encoding="utf-8") as file:
        manifest = {entry["name"]: entry for entry in json.load(file)["files"]}
    with open(os.path.join(out, "model.safetensors.index.json"), encoding="utf-8") as file:
        weight_map = json.load(file)["weight_map"]
    found, total, disk, largest = {}, 0, 0, 0
    names = sorted(name for name in manifest if name.endswith(".safetensors"))
    for name in names:
        path = os.path.join(out, name)
        status = os.stat(path)
        disk += 512 * status.st_blocks
        with open(path, "rb") as file:
            length = file.read(8)
            header_bytes = length + file.read(struct.unpack("<Q", length)[0])
        header = json.loads(header_bytes[8:])
        header.pop("__metadata__", None)
        position, scales = 0, []
        for tensor, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = entry["data_offsets"]
            assert begin == position, "a gap before %s in %s" % (tensor, name)
            assert end - begin == size_bytes(entry["shape"], entry["dtype"]), "%s has another size than its shape says" % tensor
            assert weight_map[tensor] == name, "the index has %s elsewhere" % tensor
            found[tensor] = (entry["dtype"], entry["shape"])
            if tensor.endswith("_scale_inv"):
                scales.append((len(header_bytes) + begin, len(header_bytes) + end))
            largest = max(largest, size_bytes(entry["shape"], "F8_E4M3"))
            position = end
        assert status.st_size == len(header_bytes) + position == manifest[name]["size_bytes"], "%s has %d bytes" % (name, status.st_size)
        wanted = "xxh3-128-1MiB:" + file_digest(header_bytes, status.st_size, scales).hex()
        assert manifest[name]["digest"] == wanted, "%s: digest %s, of such a header and zeros it is %s" % (name, manifest[name]["digest"], wanted)
        total += status.st_size
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    assert not missing and not unexpected, "missing %s, unexpected %s" % (missing[:5], unexpected[:5])
    assert found == expected, "shapes or types differ"
    assert set(weight_map) == set(found), "the index names other tensors"
    return {"files": len(names), "tensors": len(found), "bytes": total, "largest_tensor_elements": largest, "disk_bytes": disk}


def journal_bytes(partial):
    try:
        return sum(entry.stat().st_size for entry in os.scandir(os.path.join(partial, "journal")))
    except FileNotFoundError:
        return 0


class Merge:
    def __init__(self, options, work):
        self.options = options
        self.out = os.path.join(work, "out")
        self.config = os.path.join(work, "merge.yml")
        self.total = 0
        models = [os.path.join(work, name) for name in ("a", "b")]
        self.input_bytes = sum(write_checkpoint(options.model, directory) for directory in models)
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(CONFIG % tuple(models) + ("out_dtype: %s\n" % options.out_dtype if options.out_dtype else ""))
        self.output_bytes = sum(size_bytes(shape, dtype) for dtype, shape in expected_tensors(options.model, options.out_dtype).values())

    def run(self, ranks, *flags, interrupt_at=None):
        """Returns the program's summary. `interrupt_at`: the part of the output that is in the journal when SIGUSR1 comes."""
        options = self.options
        command = [options.mpiexec, "--oversubscribe", "--bind-to", "none", "-n", str(ranks), os.path.join(options.build, "bench/bench_null_merge"),
                   self.config, self.out, "--threads", "1", "--memory-limit", options.memory_limit, "--out-shard-size", options.out_shard_size,
                   "--journal-interval", str(options.journal_interval), *flags]
        start = time.monotonic()
        process = subprocess.Popen(command, env={**MPI_ENVIRONMENT, **os.environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            journal = 0
            while interrupt_at is not None and process.poll() is None:
                journal = journal_bytes(self.out + ".partial")
                if journal // 16 * CHUNK >= interrupt_at * self.output_bytes:  # sixteen bytes for a MiB, and a little
                    process.send_signal(signal.SIGUSR1)
                    break
                time.sleep(0.02)
            text, errors = process.communicate(timeout=options.timeout)
        except BaseException:
            process.kill()
            raise
        assert process.returncode == (0 if interrupt_at is None else INTERRUPTED), "ended with %d\n%s%s" % (process.returncode, text, errors)
        summary = json.loads(text.splitlines()[-1])
        summary["seconds_with_start"] = time.monotonic() - start
        return summary


def check_memory(summary, limit_bytes):
    for rank, report in enumerate(summary.get("reports", [])):
        assert report["peak_memory_bytes"] <= limit_bytes, "rank %d used %d bytes" % (rank, report["peak_memory_bytes"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("--work", help="a directory on a file system that knows holes; what is made in it is removed")
    parser.add_argument("--mpiexec", default="mpirun")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--resume-ranks", type=int, default=5)
    parser.add_argument("--interrupt-at", type=float, default=0.4)
    parser.add_argument("--out-dtype", choices=("bfloat16", "fp8_block"))
    parser.add_argument("--out-shard-size", default="5GB")
    parser.add_argument("--memory-limit", default="512MiB")
    parser.add_argument("--journal-interval", type=float, default=5)
    parser.add_argument("--timeout", type=float, default=7200)
    options = parser.parse_args()
    work = tempfile.mkdtemp(prefix="moeweld_full_scale_", dir=options.work)
    try:
        merge = Merge(options, work)
        print("%s: %.1f GB in, %.1f GB out" % (options.model, merge.input_bytes / 1e9, merge.output_bytes / 1e9), flush=True)
        first = merge.run(options.ranks, interrupt_at=options.interrupt_at)
        first["journal_file_bytes"] = journal_bytes(merge.out + ".partial")
        print(json.dumps({"first": first}), flush=True)
        assert first["interrupted"] and not os.path.exists(merge.out), "it was not interrupted"
        second = merge.run(options.resume_ranks, "--resume")
        print(json.dumps({"second": second}), flush=True)
        output = check_output(merge.out, options.model, options.out_dtype)
        print(json.dumps({"output": output}), flush=True)
        handed_over = sum(rank["weight_bytes"] for rank in first["storage"])
        assert 0 < second["resumed_bytes"] <= handed_over, "%d bytes were continued from" % second["resumed_bytes"]
        assert second["resumed_bytes"] + second["written_bytes"] == second["output_bytes"] == output["bytes"]
        limit = int(options.memory_limit.removesuffix("MiB")) << 20
        for summary in (first, second):
            check_memory(summary, limit)
        print("done again after the interruption: %d bytes" % (handed_over - second["resumed_bytes"]))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
