"""A merge of every kind, a rank of it killed at a random moment, continued on other ranks, and its bytes compared with those of an undisturbed run.

Used by tests/cli (a handful of seeds) and bench/kill_trials.py (as many as wanted). Standard library only.
"""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time

import tiny_models

TIMEOUT_SECONDS = 120
JOURNAL_INTERVAL_SECONDS = 0.02
ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_mpi_yield_when_idle": "1",
               "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}


def _dense(directory, size):
    for seed, name in enumerate(("base", "a", "b")):
        tiny_models.write_model(os.path.join(directory, name), seed=seed, **size)
    return ["merge", "config.yml", "--out-shard-size", "7M"], (
        "models:\n  - {model: a, parameters: {density: 0.5, weight: 0.5}}\n  - {model: b, parameters: {density: 0.5, weight: 0.5}}\n"
        "base_model: base\nmerge_method: ties\ndtype: bfloat16\n")


def _assembly(directory, size):
    for seed, name in enumerate(("a", "b")):
        tiny_models.write_model(os.path.join(directory, name), seed=seed, **size)
    return ["merge", "config.yml"], (
        "base_model: a\ngate_mode: hidden\ndtype: bfloat16\nexperts:\n"
        "  - {source_model: a, positive_prompts: ['a long story about code'], negative_prompts: ['sums']}\n"
        "  - {source_model: b, positive_prompts: ['1 + 1 = 2', 'sums of numbers']}\n")


def _mixture(directory, name, seed, size):
    tiny_models.write_model(os.path.join(directory, name), seed=seed, family="mixtral", experts=4, **{**size, "intermediate": size["intermediate"] // 4})


def _extraction(directory, size):
    _mixture(directory, "m", 1, size)
    return ["extract", "m", "--all"], ""


def _aligned(directory, size):
    for seed, name in enumerate(("a", "b")):
        _mixture(directory, name, seed, size)
    return ["merge", "config.yml"], ("models:\n  - {model: a, parameters: {weight: 0.5}}\n  - {model: b, parameters: {weight: 0.5}}\n"
                                     "base_model: a\nmerge_method: linear\nalign_experts: true\ndtype: bfloat16\n")


def _quantise(directory, seed):
    """Makes the matrices of a model's layers block-scaled FP8 of other values."""
    path = os.path.join(directory, "model.safetensors")
    generator = random.Random(seed)
    no_nan = bytes(code - 1 if code in (0x7F, 0xFF) else code for code in range(256))
    tensors = []
    for name, (dtype, shape, data) in tiny_models.read_safetensors(path).items():
        if not name.endswith("_proj.weight"):
            tensors.append((name, shape, data, dtype))
            continue
        blocks = [-(-extent // 128) for extent in shape]
        scales = [generator.uniform(1e-4, 4e-4) for _ in range(blocks[0] * blocks[1])]
        tensors.append((name, shape, generator.randbytes(shape[0] * shape[1]).translate(no_nan), "F8_E4M3"))
        tensors.append((name + "_scale_inv", blocks, struct.pack("<%df" % len(scales), *scales), "F32"))
    tiny_models.write_safetensors(path, tensors)
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    config["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
    tiny_models.write_json(os.path.join(directory, "config.json"), config)


def _fp8(directory, size):
    for seed, name in enumerate(("a", "b")):
        tiny_models.write_model(os.path.join(directory, name), seed=seed, **size)
        _quantise(os.path.join(directory, name), seed)
    return ["merge", "config.yml", "--out-shard-size", "7M"], (
        "models:\n  - {model: a}\n  - {model: b}\nbase_model: a\nmerge_method: slerp\nparameters: {t: 0.3}\nout_dtype: fp8_block\n")


KINDS = {"dense": _dense, "assembly": _assembly, "extraction": _extraction, "aligned": _aligned, "fp8": _fp8}
SIZE = {"layers": 3, "hidden": 512, "intermediate": 2048, "vocab": 2000, "heads": 8, "kv_heads": 2}
SMALL_SIZE = {"layers": 2, "hidden": 256, "intermediate": 2048, "vocab": 2000, "heads": 8, "kv_heads": 2}


def model_bytes(directory):
    """{relative path: bytes} of all that must not depend on how a merge went: without manifests, which have the command line."""
    result = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            if name == "moeweld_manifest.json":
                continue
            with open(os.path.join(parent, name), "rb") as file:
                result[os.path.relpath(os.path.join(parent, name), directory)] = file.read()
    return result


def has_whole_record(journal):
    """Whether a journal's first record is there to its end (docs/journal.md)."""
    if not os.path.exists(journal):
        return False
    with open(journal, "rb") as file:
        content = file.read()
    magic, _, record = content.partition(b"\n")
    header = struct.Struct("<8sQB")
    if not magic or len(record) < header.size:
        return False
    _, length, _ = header.unpack_from(record)
    return len(record) >= header.size + length


def _ranks_of(launcher):
    """Process numbers of the launcher's children."""
    children = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % entry, encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == launcher and fields[0] not in "ZX":
            children.append(int(entry))
    return sorted(children)


class Failed(Exception):
    """What had to hold did not."""


class Work:
    """One merge with its inputs and what it has to come to."""

    def __init__(self, directory, kind, moeweld, mpiexec="mpiexec", size=None):
        self.directory = directory
        self.moeweld = moeweld
        self.mpiexec = mpiexec
        os.makedirs(directory)
        self.arguments, config = KINDS[kind](directory, size or SIZE)
        with open(os.path.join(directory, "config.yml"), "w", encoding="utf-8") as file:
            file.write(config)
        self.seconds = {}
        for ranks in (1, 2, 3):
            begin = time.monotonic()
            result = self.run(ranks, self.command("whole-%d" % ranks))
            self.seconds[ranks] = time.monotonic() - begin
            if result.returncode != 0:
                raise Failed("an undisturbed run on %d ranks ended with %d: %s" % (ranks, result.returncode, result.stderr))
        self.expected = model_bytes(self.path("whole-1"))
        for ranks in (2, 3):
            if model_bytes(self.path("whole-%d" % ranks)) != self.expected:
                raise Failed("undisturbed runs on 1 and on %d ranks differ" % ranks)
            shutil.rmtree(self.path("whole-%d" % ranks))

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def command(self, output, *flags):
        arguments = list(self.arguments)
        arguments.insert(2, output)
        return [self.moeweld, *arguments, "--threads", "1", "--memory-limit", "160M", "--log-format", "json",
                "--journal-interval", str(JOURNAL_INTERVAL_SECONDS), *flags]

    def launcher(self, ranks):
        return [self.mpiexec, "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]

    def run(self, ranks, command):
        return subprocess.run([*self.launcher(ranks), *command], cwd=self.directory, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True,
                              timeout=TIMEOUT_SECONDS)

    def status(self, output):
        result = subprocess.run([self.moeweld, "status", output, "--json"], cwd=self.directory, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        return json.loads(result.stdout)

    def journal_bytes(self, output):
        """Of what ranks have recorded as done, as it grows."""
        directory = self.path(output + ".partial", "journal")
        try:
            return sum(os.path.getsize(os.path.join(directory, name)) for name in os.listdir(directory) if name != "00000-000000")
        except OSError:
            return 0

    def kill_one(self, ranks, command, is_time, victim):
        """Starts `command` and kills one rank of it when is_time() says so. Whether it had not ended by then."""
        process = subprocess.Popen([*self.launcher(ranks), *command], cwd=self.directory, env={**os.environ, **ENVIRONMENT},
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not is_time():
            time.sleep(0.001)
        children = _ranks_of(process.pid) if process.returncode is None else []
        if children:
            os.kill(children[victim % len(children)], signal.SIGKILL)
        try:
            return process.wait(TIMEOUT_SECONDS) != 0
        except subprocess.TimeoutExpired:
            process.terminate()
            raise Failed("a job hangs whose rank was killed") from None

    def moment(self, generator, ranks, output):
        """When to kill: at a random time, or when the journal has grown by a random number of records."""
        if generator.random() < 0.3:
            end = time.monotonic() + generator.uniform(0.05, 1.0) * self.seconds[ranks]
            return lambda: time.monotonic() >= end
        wanted = self.journal_bytes(output) + generator.choice((1, 70, 150, 300))
        return lambda: self.journal_bytes(output) >= wanted

    def _status_after_death(self, output):
        """The launcher may end before the last of its ranks."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while True:
            status = self.status(output)
            if status["state"] != "running":
                return status
            if time.monotonic() > end:
                raise Failed("a job runs on whose launcher has ended: %s" % status)
            time.sleep(0.05)

    def _compare(self, seed, output):
        found = model_bytes(self.path(output))
        if sorted(found) != sorted(self.expected):
            raise Failed("seed %d: files differ: %s and %s" % (seed, sorted(found), sorted(self.expected)))
        for name, content in self.expected.items():
            if found[name] != content:
                raise Failed("seed %d: other bytes in %s" % (seed, name))

    def trial(self, seed):
        """Kills once or twice, continues, compares. Returns what happened; throws Failed."""
        generator = random.Random(seed)
        output = "out-%d" % seed
        report = {"seed": seed, "kills": [], "resumed_bytes": 0}
        for _ in range(generator.choice((1, 1, 2))):
            ranks = generator.choice((2, 3))
            moment = self.moment(generator, ranks, output)
            if not self.kill_one(ranks, self.command(output, "--resume"), moment, generator.randrange(ranks)):
                continue
            status = self._status_after_death(output)
            report["kills"].append({"ranks": ranks, "state": status["state"], "finished_bytes": status["finished_bytes"],
                                    "total_bytes": status["total_bytes"]})
            if os.path.exists(self.path(output)):
                self._compare(seed, output)
                break
        before = self.status(output)
        ranks = generator.choice((1, 2, 3))
        resumed = self.run(ranks, self.command(output, "--resume"))
        if resumed.returncode != 0:
            raise Failed("seed %d: --resume ended with %d: %s%s" % (seed, resumed.returncode, resumed.stdout, resumed.stderr))
        for line in resumed.stdout.splitlines():
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "summary":
                report["resumed_bytes"] = event["resumed_bytes"]
                if event["resumed_bytes"] < before["finished_bytes"]:
                    raise Failed("seed %d: %d durable bytes, and only %d were found again" % (seed, before["finished_bytes"], event["resumed_bytes"]))
        self._compare(seed, output)
        left = [name for name in os.listdir(self.directory) if name.startswith(output) and name != output]
        if left:
            raise Failed("seed %d: left over: %s" % (seed, left))
        shutil.rmtree(self.path(output))
        return report
