#!/usr/bin/env python3
"""The binary from outside: what it prints, what it writes and how it ends.

cli_test.py [class.method...]     MOEWELD names the binary, MPIEXEC the launcher. Standard library only.
"""

import json
import os
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import tiny_models  # noqa: E402

MOEWELD = os.path.abspath(os.environ.get("MOEWELD", "moeweld"))
MPIEXEC = os.environ.get("MPIEXEC", "mpiexec")
TIMEOUT_SECONDS = 90
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]

SLERP = """models:
  - model: a
  - model: b
base_model: a
merge_method: slerp
parameters: {t: 0.3}
dtype: bfloat16
"""

LINEAR = """models:
  - model: a
    parameters:
      weight: 0.5
  - model: b
    parameters:
      weight: 0.5
merge_method: linear
dtype: %s
"""
TIES = """models:
  - model: a
    parameters: {density: 0.5, weight: 0.5}
  - model: b
    parameters: {density: 0.5, weight: 0.5}
base_model: base
merge_method: ties
dtype: bfloat16
"""


def tree(directory):
    """{relative path: bytes} of everything below a directory."""
    result = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                result[os.path.relpath(path, directory)] = file.read()
    return result


class CliTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="moeweld_cli_")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def models(self, *names, **options):
        for seed, name in enumerate(names):
            tiny_models.write_model(self.path(name), seed=seed, **options)

    def run_command(self, *arguments, launcher=()):
        return subprocess.run([*launcher, MOEWELD, *arguments], cwd=self.directory, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)

    def run_ranks(self, ranks, *arguments):
        return self.run_command(*arguments, launcher=(MPIEXEC, "--oversubscribe", "-n", str(ranks)))

    def assert_ends(self, result, code):
        self.assertEqual(result.returncode, code, "stdout: %s\nstderr: %s" % (result.stdout, result.stderr))

    def merge_linear(self, *flags, dtype="bfloat16"):
        self.write("linear.yml", LINEAR % dtype)
        result = self.run_command("merge", "linear.yml", "out", *flags)
        self.assert_ends(result, 0)
        return result


class arguments(CliTest):
    def unknown_flag_is_a_usage_error(self):
        result = self.run_command("merge", "a.yml", "out", "--memory-limt", "1GiB")
        self.assert_ends(result, 2)
        self.assertIn("--memory-limt", result.stderr)
        self.assertEqual(result.stdout, "")

    def bad_size_is_a_usage_error(self):
        result = self.run_command("merge", "a.yml", "out", "--out-shard-size", "many")
        self.assert_ends(result, 2)
        self.assertIn("'many'", result.stderr)

    def help_documents_exit_codes(self):
        result = self.run_command("--help")
        self.assert_ends(result, 0)
        for command in ("merge", "plan", "verify", "inspect", "extract", "reduce", "check", "diff", "report", "methods"):
            self.assertIn(command, result.stdout)
        for code in ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "75"):
            self.assertRegex(result.stdout[result.stdout.index("Exit codes"):], r"\b%s\b" % code)

    def version_is_printed(self):
        result = self.run_command("--version")
        self.assert_ends(result, 0)
        self.assertRegex(result.stdout, r"^moeweld \d+\.\d+\.\d+\n$")

    def every_test_is_registered(self):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "CMakeLists.txt"), encoding="utf-8") as file:
            text = file.read().split("set(cli_tests")[1].split(")")[0]
        listed = {word for word in text.split() if "." in word}
        self.assertEqual(listed, set(all_tests()))

    def check_takes_one_input(self):
        for flags in ((), ("--text", "a", "--token-ids", "b")):
            self.assert_ends(self.run_command("check", "model", *flags), 2)
        self.assert_ends(self.run_command("merge", "a.yml", "out", "--token-ids", "b"), 2)  # without --check


class checking(CliTest):
    def says_perplexity_and_next_tokens(self):
        self.models("model")
        self.write("ids.txt", "[1, 2, 3]\n\n[4]\n")
        result = self.run_command("check", "model", "--token-ids", "ids.txt")
        self.assert_ends(result, 0)
        self.assertRegex(result.stdout, r"(?m)^input +4 tokens in 2 sequences$")
        self.assertRegex(result.stdout, r"(?m)^logits +all finite$")
        self.assertRegex(result.stdout, r"(?m)^perplexity +[\d.]+ over 2 tokens$")
        said = json.loads(self.run_command("check", "model", "--token-ids", "ids.txt", "--json").stdout)
        self.assertEqual(said["ids"], [[1, 2, 3], [4]])
        self.assertEqual(len(said["next_tokens"]), 2)
        self.assertGreater(said["perplexity"], 1)

    def bad_lines_are_named(self):
        self.models("model")
        self.write("ids.txt", "[1, 2]\n[1, x]\n{}\n[]\n[1.5]\n")
        result = self.run_command("check", "model", "--token-ids", "ids.txt")
        self.assert_ends(result, 3)
        for line in (2, 3, 4, 5):
            self.assertIn("ids.txt:%d: " % line, result.stderr)
        self.assertNotIn("ids.txt:1: ", result.stderr)
        self.write("ids.txt", "[1, 123456789]\n")
        result = self.run_command("check", "model", "--token-ids", "ids.txt")
        self.assert_ends(result, 3)
        self.assertIn("token id 123456789", result.stderr)

    @unittest.skipUnless(platform.machine() == "x86_64", "these cores are x86-64's")
    def unlike_blas_cores_are_refused_once(self):
        self.models("model")
        self.write("ids.txt", "[1, 2, 3]\n")
        arguments = ("check", "model", "--token-ids", "ids.txt", "--json")

        def run_on(first, second):
            rank = lambda core: ("-n", "1", "env", "OPENBLAS_CORETYPE=" + core)
            return self.run_command(*arguments, launcher=(MPIEXEC, "--oversubscribe", *rank(first), MOEWELD, *arguments, ":", *rank(second)))

        same = run_on("Nehalem", "Nehalem")
        self.assert_ends(same, 0)
        self.assertEqual(json.loads(same.stdout)["blas_core"], "Nehalem")
        unlike = run_on("Nehalem", "Prescott")
        self.assertNotEqual(unlike.returncode, 0)
        self.assertEqual(unlike.stderr.count("rank 0 runs OpenBLAS for Nehalem and rank 1 for Prescott"), 1, unlike.stderr)
        self.assertIn("OPENBLAS_CORETYPE", unlike.stderr)

    def merge_check_runs_the_result(self):
        self.models("a", "b")
        result = self.merge_linear("--check")
        self.assertRegex(result.stdout, r"(?m)^input +64 tokens in 1 sequence$")
        self.assertRegex(result.stdout, r"(?m)^logits +all finite$")
        self.write("ids.txt", "[1, 2, 3]\n")
        result = self.run_command("merge", "linear.yml", "out2", "--check", "--token-ids", "ids.txt")
        self.assert_ends(result, 0)
        self.assertRegex(result.stdout, r"(?m)^perplexity +[\d.]+ over 2 tokens$")
        result = self.run_command("merge", "linear.yml", "out3", "--check", "--token-ids", "nowhere.txt")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("nowhere.txt", result.stderr)
        self.assertFalse(os.path.exists(self.path("out3")), "found before the merge")


class problems(CliTest):
    def missing_config_is_named(self):
        result = self.run_command("merge", "nowhere.yml", "out")
        self.assert_ends(result, 3)
        self.assertIn("moeweld: cannot merge: 1 problem\n\n  nowhere.yml: ", result.stderr)
        self.assertIn("Nothing was written.", result.stderr)

    def missing_model_is_named(self):
        self.models("a")
        self.write("linear.yml", LINEAR % "bfloat16")
        result = self.run_command("merge", "linear.yml", "out")
        self.assert_ends(result, 3)
        self.assertIn("linear.yml:5: there is no model 'b'", result.stderr)
        self.assertIn("models--b", result.stderr, "says that the hub cache was looked at")
        self.assertFalse(os.path.exists(self.path("out")))

    def misspelt_parameter_has_its_line(self):
        self.models("a", "b")
        self.write("linear.yml", (LINEAR % "bfloat16").replace("weight: 0.5", "wieght: 0.5", 1))
        result = self.run_command("merge", "linear.yml", "out")
        self.assert_ends(result, 3)
        self.assertIn("linear.yml:4: ", result.stderr)
        self.assertIn("wieght", result.stderr)
        self.assertIn("'weight'", result.stderr)

    def truncated_file_is_named_with_both_sizes(self):
        self.models("a", "b")
        file = self.path("b", "model.safetensors")
        size = os.path.getsize(file)
        os.truncate(file, size // 2)
        self.write("linear.yml", LINEAR % "bfloat16")
        result = self.run_command("merge", "linear.yml", "out")
        self.assert_ends(result, 3)
        self.assertIn("b/model.safetensors", result.stderr)
        with open(file, "rb") as opened:
            data_begin = 8 + struct.unpack("<Q", opened.read(8))[0]
        stated = {str(size), str(size - data_begin)}
        found = {str(size // 2), str(size // 2 - data_begin)}
        numbers = set(re.findall(r"\d+", result.stderr))
        self.assertTrue(numbers & stated and numbers & found, result.stderr)
        self.assertIn("cannot merge: 1 problem\n", result.stderr)

    def unsupported_method_is_refused_by_name(self):
        self.models("a", "b")
        self.write("linear.yml", (LINEAR % "bfloat16").replace("linear", "dare_ties"))
        result = self.run_command("merge", "linear.yml", "out")
        self.assert_ends(result, 4)
        self.assertIn("dare_ties", result.stderr)

    def json_log_carries_the_problems(self):
        result = self.run_command("merge", "nowhere.yml", "out", "--log-format", "json")
        self.assert_ends(result, 3)
        events = [json.loads(line) for line in (result.stdout + result.stderr).splitlines()]
        error = [event for event in events if event["event"] == "error"]
        self.assertEqual(len(error), 1)
        self.assertEqual(error[0]["exit_code"], 3)
        self.assertEqual(error[0]["problems"][0]["path"], "nowhere.yml")

    def memory_limit_too_small_writes_nothing(self):
        self.models("a", "b")
        self.write("linear.yml", LINEAR % "bfloat16")
        result = self.run_command("merge", "linear.yml", "out", "--memory-limit", "1k")
        self.assert_ends(result, 2)
        self.assertEqual(sorted(os.listdir(self.directory)), ["a", "b", "linear.yml"])


class merging(CliTest):
    def result_verifies_and_is_the_mean(self):
        self.models("a", "b", dtype="float64")
        result = self.merge_linear(dtype="float64")
        self.assertIn("moeweld verify out", result.stdout)
        inputs = [tiny_models.read_model(self.path(name)) for name in ("a", "b")]
        output = tiny_models.read_model(self.path("out"))
        self.assertEqual(set(output), set(inputs[0]))
        for name, (_, shape, data) in output.items():
            self.assertEqual(shape, inputs[0][name][1])
            values = [struct.unpack("<%dd" % (len(model[name][2]) // 8), model[name][2]) for model in inputs]
            merged = struct.unpack("<%dd" % (len(data) // 8), data)
            for x, y, mean in zip(*values, merged):
                self.assertAlmostEqual(mean, (x + y) / 2, delta=1e-15, msg=name)
        self.assert_ends(self.run_command("verify", "out"), 0)

    def existing_output_is_kept_without_force(self):
        self.models("a", "b")
        self.write("linear.yml", LINEAR % "bfloat16")
        os.mkdir(self.path("out"))
        self.write("out/mine.txt", "keep")
        result = self.run_command("merge", "linear.yml", "out")
        self.assert_ends(result, 7)
        self.assertIn("--force", result.stderr)
        self.assertEqual(tree(self.path("out")), {"mine.txt": b"keep"})

    def force_replaces_the_output(self):
        self.models("a", "b")
        os.mkdir(self.path("out"))
        self.write("out/mine.txt", "old")
        self.merge_linear("--force")
        self.assertFalse(os.path.exists(self.path("out", "mine.txt")))
        self.assert_ends(self.run_command("verify", "out"), 0)
        self.assertEqual(sorted(os.listdir(self.directory)), ["a", "b", "linear.yml", "out"])

    def plan_touches_nothing(self):
        self.models("a", "b")
        self.write("linear.yml", LINEAR % "bfloat16")
        before = tree(self.directory)
        result = self.run_command("plan", "linear.yml", "--ranks", "8")
        self.assert_ends(result, 0)
        self.assertIn("21 tensors", result.stdout)
        self.assertEqual(tree(self.directory), before)

    def plan_json_is_json(self):
        self.models("a", "b")
        self.write("linear.yml", LINEAR % "bfloat16")
        result = self.run_command("plan", "linear.yml", "--ranks", "3", "--json")
        self.assert_ends(result, 0)
        plan = json.loads(result.stdout)
        self.assertEqual(plan["schema"], "moeweld.plan/1")
        self.assertEqual(plan["ranks"], 3)
        self.assertEqual({operation["name"] for operation in plan["operations"]}, set(tiny_models.read_model(self.path("a"))))

    def plan_sbatch_is_a_header_that_says_its_rates(self):
        self.models("a", "b")
        self.write("linear.yml", LINEAR % "bfloat16")
        result = self.run_command("plan", "linear.yml", "--sbatch")
        self.assert_ends(result, 0)
        self.assertTrue(result.stdout.startswith("#!/bin/bash\n"))
        self.assertRegex(result.stdout, r"(?m)^# Rates: stated ones")
        for option in (r"nodes=1", r"ntasks-per-node=\d+", r"cpus-per-task=\d+", r"mem=\d+G", r"time=00:10:00", r"signal=B:USR1@300", "requeue"):
            self.assertRegex(result.stdout, r"(?m)^#SBATCH --%s$" % option)
        self.write("site.json", json.dumps({
            "schema": "moeweld.site/1", "site": "cedar", "measured": "2026-11-26", "cores_per_node": 16, "memory_per_node_bytes": 64e9,
            "read_bytes_per_second_per_node": 100, "write_bytes_per_second_per_node": 100, "file_system_bytes_per_second": 1e6,
            "forward_flops_per_second_per_core": 1e9, "combine_bytes_per_second_per_core": {"default": 1e9}}))
        slow = self.run_command("plan", "linear.yml", "--sbatch", "--site", "site.json", "--nodes", "3")
        self.assert_ends(slow, 0)
        self.assertIn("# Rates: measured, site.json (cedar, 2026-11-26)\n", slow.stdout)
        self.assertIn("#SBATCH --nodes=3\n", slow.stdout)
        read = sum(len(data) for name in ("a", "b") for _, _, data in tiny_models.read_model(self.path(name)).values())
        limit = 1.5 * (20 + read / 300) + 300
        hours, minutes, seconds = map(int, re.search(r"--time=(\d+):(\d+):(\d+)\n", slow.stdout).groups())
        self.assertEqual(hours * 3600 + minutes * 60 + seconds, -(-limit // 300) * 300)
        self.write("site.json", "{}")
        broken = self.run_command("plan", "linear.yml", "--sbatch", "--site", "site.json")
        self.assert_ends(broken, 3)
        self.assertIn("site.json: ", broken.stderr)

    def json_log_is_one_object_per_line(self):
        self.models("a", "b")
        result = self.merge_linear("--log-format", "json")
        events = [json.loads(line) for line in (result.stdout + result.stderr).splitlines()]
        self.assertEqual([event["event"] for event in events].count("summary"), 1)

    def mergekit_flags_are_accepted_and_said_to_do_nothing(self):
        self.models("a", "b")
        result = self.merge_linear("--cuda", "--lazy-unpickle", "--low-cpu-memory", "--no-clone-tensors", "-j", "4", "--device", "cpu",
                                   "--read-to-gpu", "--write-threads", "2", "--safe-serialization")
        lines = [line for line in (result.stdout + result.stderr).splitlines() if "--cuda" in line]
        self.assertEqual(len(lines), 1)
        self.assertIn("--lazy-unpickle", lines[0])

    def interrupt_leaves_no_output(self):
        self.models("base", "a", "b", layers=2, hidden=2048, intermediate=8192, vocab=4000, heads=16, kv_heads=4)
        self.write("ties.yml", TIES)
        process = subprocess.Popen([MOEWELD, "merge", "ties.yml", "out", "--threads", "1", "--memory-limit", "256MiB"], cwd=self.directory,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not os.path.exists(self.path("out.partial")):
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
        self.assertEqual(process.returncode, 75, stderr)
        self.assertIn("SIGINT", stderr)
        self.assertFalse(os.path.exists(self.path("out")))

    def _begin_and_interrupt(self, signal_number):
        """A merge into 'out' that has been ended by a signal once some of it was durable."""
        self.models("base", "a", "b", layers=2, hidden=1024, intermediate=4096, vocab=4000, heads=16, kv_heads=4)
        self.write("ties.yml", TIES)
        process = subprocess.Popen([MOEWELD, "merge", "ties.yml", "out", "--threads", "1", "--memory-limit", "128MiB", "--journal-interval", "0"],
                                   cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while_running = None
        while process.poll() is None:
            while_running = self.run_command("status", "out", "--json")
            if json.loads(while_running.stdout)["finished_bytes"] > 0:
                break
        # Stopped, it is alive and cannot end; the signal waits for SIGCONT.
        process.send_signal(signal.SIGSTOP)
        second = self.run_command("merge", "ties.yml", "out", "--resume")
        process.send_signal(signal_number)
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
        self.assertEqual(process.returncode, 75, stderr)
        self.assertFalse(os.path.exists(self.path("out.lock")))
        return while_running, second, stderr

    def interrupted_merge_continues_to_the_same_bytes(self):
        _, _, stderr = self._begin_and_interrupt(signal.SIGUSR1)
        self.assertIn("SIGUSR1", stderr)
        self.assertIn("--resume", stderr)
        status = self.run_command("status", "out", "--json")
        self.assert_ends(status, 75)
        status = json.loads(status.stdout)
        self.assertEqual(status["state"], "resumable")
        self.assertGreater(status["finished_bytes"], 0)
        self.assertLess(status["finished_bytes"], status["total_bytes"])
        self.assert_ends(self.run_command("merge", "ties.yml", "out"), 7)
        self.assert_ends(self.run_command("merge", "ties.yml", "out", "--resume", "--random-seed", "3"), 3)
        resumed = self.run_ranks(2, "merge", "ties.yml", "out", "--resume", "--log-format", "json")
        self.assert_ends(resumed, 0)
        summary = [json.loads(line) for line in resumed.stdout.splitlines() if '"summary"' in line][0]
        self.assertGreaterEqual(summary["resumed_bytes"], status["finished_bytes"])
        self.assertEqual(summary["resumed_bytes"] + summary["written_bytes"], status["total_bytes"])
        self.assert_ends(self.run_command("verify", "out"), 0)
        self.assert_ends(self.run_command("merge", "ties.yml", "whole"), 0)
        resumed, whole = tree(self.path("out")), tree(self.path("whole"))
        del resumed["moeweld_manifest.json"], whole["moeweld_manifest.json"]
        self.assertEqual(sorted(resumed), sorted(whole))
        for name in resumed:
            self.assertTrue(resumed[name] == whole[name], name)
        self.assert_ends(self.run_command("status", "out"), 0)
        # As a job leaves it that dies between publishing its output and its own end.
        self.write("out.lock", "")
        os.utime(self.path("out.lock"), (0, 0))
        again = self.run_command("merge", "ties.yml", "out", "--resume")
        self.assert_ends(again, 0)
        self.assertIn("complete", again.stdout)
        self.assertFalse(os.path.exists(self.path("out.lock")))

    def large_tensors_in_the_page_cache_are_read_twice_and_give_the_same_bytes(self):
        """Touching memory to hold them would cost more than the second copy; read past the cache, they are held and read once."""
        self.models("a", "b", hidden=512, vocab=40960, layers=1, tied=True)  # embeddings of 42 MB
        self.write("slerp.yml", SLERP)
        inputs = sum(os.path.getsize(self.path(name, "model.safetensors")) for name in ("a", "b"))
        read, peaks = {}, {}
        for io in ("auto", "direct"):
            for name in ("a", "b"):  # the kernel may have dropped them
                with open(self.path(name, "model.safetensors"), "rb") as file:
                    while file.read(1 << 24):
                        pass
            result = self.run_command("merge", "slerp.yml", io, "--io", io, "--log-format", "json")
            self.assert_ends(result, 0)
            summary = next(json.loads(line) for line in result.stdout.splitlines() if '"summary"' in line)
            read[io], peaks[io] = summary["read_bytes"], summary["peak_memory_bytes"]
        embeddings = 2 * 40960 * 512 * 2
        self.assertLess(read["direct"], 1.02 * inputs)
        self.assertGreater(read["auto"], inputs + 0.98 * embeddings)
        self.assertLess(read["auto"], 1.02 * (inputs + embeddings))
        self.assertLess(peaks["auto"] + embeddings / 2, peaks["direct"])
        self.assertEqual(tree(self.path("auto"))["model.safetensors"], tree(self.path("direct"))["model.safetensors"])

    def second_job_on_one_output_is_refused(self):
        status, second, _ = self._begin_and_interrupt(signal.SIGTERM)
        if status is None or second is None:
            self.skipTest("the first job ended before the second began")
        self.assert_ends(status, 7)
        self.assertEqual(json.loads(status.stdout)["state"], "running")
        self.assert_ends(second, 7)
        self.assertIn("another job is writing it: process", second.stderr.replace("\n    ", " "))
        self.assertTrue(os.path.exists(self.path("out.partial/journal")))

    def two_ranks_print_once_and_give_the_same_bytes(self):
        self.models("a", "b")
        self.merge_linear()
        result = self.run_ranks(2, "merge", "linear.yml", "out2")
        self.assert_ends(result, 0)
        self.assertEqual(result.stdout.count("moeweld verify out2"), 1)
        self.assertEqual(tiny_models.read_model(self.path("out2")), tiny_models.read_model(self.path("out")))
        verified = self.run_ranks(2, "verify", "out2")
        self.assert_ends(verified, 0)
        self.assertEqual(len(verified.stdout.splitlines()), 1)

    def failure_on_two_ranks_is_printed_once(self):
        result = self.run_ranks(2, "merge", "nowhere.yml", "out")
        self.assert_ends(result, 3)
        self.assertEqual(result.stderr.count("cannot merge"), 1)


class node(CliTest):
    """What ranks of a node agree on, as the -v line says it."""
    ENVIRONMENT = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "OMP_NUM_THREADS", "OMP_PROC_BIND")

    def assert_and_get_line(self, launcher, **variables):
        environment = {name: value for name, value in os.environ.items() if name not in self.ENVIRONMENT}
        shutil.rmtree(self.path("out"), ignore_errors=True)
        result = subprocess.run([*launcher, MOEWELD, "merge", "linear.yml", "out", "-v"], cwd=self.directory, env={**environment, **variables},
                                capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        self.assert_ends(result, 0)
        lines = [line for line in result.stdout.splitlines() if line.startswith("node of rank 0: ")]
        self.assertEqual(len(lines), 1, result.stdout)
        return lines[0]

    def setUp(self):
        super().setUp()
        self.models("a", "b")
        self.write("linear.yml", LINEAR % "bfloat16")

    def threads_follow_the_mask_and_slurm(self):
        cores = len(os.sched_getaffinity(0))
        self.assertIn("1 rank on %d core" % cores, self.assert_and_get_line(()))
        one = str(min(os.sched_getaffinity(0)))
        self.assertIn("1 thread per rank (affinity mask)", self.assert_and_get_line(("taskset", "-c", one)))
        if cores > 1:
            self.assertIn("1 thread per rank (SLURM_CPUS_PER_TASK)", self.assert_and_get_line((), SLURM_CPUS_PER_TASK="1"))
            self.assertIn("1 thread per rank (OMP_NUM_THREADS)", self.assert_and_get_line((), OMP_NUM_THREADS="1"))
            self.assertIn("%d threads per rank (affinity mask)" % cores, self.assert_and_get_line((), OMP_NUM_THREADS="999", SLURM_CPUS_PER_TASK="999"))
            # libgomp has pinned the first thread by then; the rank still has all its cores.
            self.assertIn("%d threads per rank (affinity mask)" % cores, self.assert_and_get_line((), OMP_PROC_BIND="true"))

    def ranks_share_the_node_and_one_without_work_is_fine(self):
        cores = len(os.sched_getaffinity(0))
        ranks = 2 * cores + 1
        alone = self.assert_and_get_line(())
        reference = tree(self.path("out"))
        line = self.assert_and_get_line((MPIEXEC, "--oversubscribe", "--bind-to", "none", "-n", str(ranks)))
        self.assertIn("%d ranks on %d core" % (ranks, cores), line)
        self.assertIn("1 thread per rank", line)
        self.assertEqual(alone.rsplit(";", 1)[1], line.rsplit(";", 1)[1], "the same instructions")
        names = [name for name in reference if name.endswith(".safetensors")]
        self.assertTrue(names)
        shared = tree(self.path("out"))
        for name in names:
            self.assertEqual(shared[name], reference[name])
        manifest = json.loads(shared["moeweld_manifest.json"])
        self.assertEqual(len(manifest["simd_targets"]), ranks)
        self.assertEqual(len(set(manifest["simd_targets"])), 1)
        self.assertIn("OpenBLAS for %s" % manifest["blas_core"], line)

    def more_threads_than_cores_are_warned_of(self):
        result = self.run_command("merge", "linear.yml", "out", "--threads", "4000")
        self.assert_ends(result, 0)
        self.assertIn("--threads 4000 is more than this rank's share of cores", result.stderr)

    def unknown_instructions_are_refused_once_by_all_ranks(self):
        result = self.run_ranks(2, "merge", "linear.yml", "out", "--simd", "MMX")
        self.assert_ends(result, 2)
        self.assertEqual(result.stderr.count("no SIMD target 'MMX'"), 1)


class tracing(CliTest):
    KINDS = {"stage", "read", "combine", "write", "journal", "wait"}

    def assert_spans(self, name):
        """{(rank, thread): [spans]} of a trace file, after checks that hold for every one."""
        with open(self.path(name), encoding="utf-8") as file:
            trace = json.load(file)
        self.assertEqual(trace["otherData"]["schema"], "moeweld.trace/1")
        self.assertEqual(trace["otherData"]["dropped_spans"], 0)
        rows = {}
        for event in trace["traceEvents"]:
            if event["ph"] == "X":
                self.assertIn(event["cat"], self.KINDS)
                self.assertGreaterEqual(event["ts"], 0)
                self.assertGreaterEqual(event["dur"], 0)
                rows.setdefault((event["pid"], event["tid"]), []).append(event)
        for row in rows.values():
            # A viewer draws spans of a row as nested: each is within another or beside it.
            ends = []
            for span in sorted(row, key=lambda span: (span["ts"], -span["dur"])):
                while ends and ends[-1] <= span["ts"] + 0.002:
                    ends.pop()
                if ends:
                    self.assertLessEqual(span["ts"] + span["dur"], ends[-1] + 0.002, span)
                ends.append(span["ts"] + span["dur"])
        names = {(event["pid"], event["tid"]): event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
        return trace["otherData"], rows, names

    def every_rank_and_thread_has_its_row(self):
        self.models("base", "a", "b", hidden=256, intermediate=512, vocab=4000)
        self.write("ties.yml", TIES)
        start = time.monotonic()
        self.assert_ends(self.run_ranks(2, "merge", "ties.yml", "out", "--threads", "2", "--trace", "trace.json"), 0)
        seconds = time.monotonic() - start
        about, rows, names = self.assert_spans("trace.json")
        self.assertEqual(about["ranks"], 2)
        for rank in (0, 1):
            kinds = {span["cat"] for (pid, _), row in rows.items() for span in row if pid == rank}
            self.assertLessEqual({"stage", "read", "combine", "write", "wait"}, kinds)
            threads = {names[key] for key in rows if key[0] == rank}
            self.assertIn("pipeline", threads)
            for kind in ("reader ", "writer "):  # one of them may have found nothing left to do
                self.assertTrue(any(name.startswith(kind) for name in threads), threads)
        everything = [span for row in rows.values() for span in row]
        self.assertLess(max(span["ts"] + span["dur"] for span in everything), seconds * 1e6)
        written = sum(span.get("args", {}).get("bytes", 0) for span in everything if span["name"] == "write")
        output = sum(len(data) for data in tree(self.path("out")).values())
        self.assertGreaterEqual(written, output)
        self.assertLess(written, output + (64 << 10))  # the journal, which is not kept
        read = sum(span.get("args", {}).get("bytes", 0) for span in everything if span["name"] == "read")
        self.assertGreaterEqual(read, sum(os.path.getsize(self.path(name, "model.safetensors")) for name in ("base", "a", "b")) * 0.9)

    def failed_merge_leaves_its_trace(self):
        self.models("a", "b")
        self.write("linear.yml", LINEAR % "bfloat16")
        with open(self.path("a", "model.safetensors"), "r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(b"\xc0\x7f")  # NaN
        self.assert_ends(self.run_command("merge", "linear.yml", "out", "--check-finite", "--trace", "trace.json"), 3)
        self.assertIn("read", {span["cat"] for row in self.assert_spans("trace.json")[1].values() for span in row})

    def unwritable_trace_is_found_before_the_merge(self):
        self.models("a", "b")
        self.write("linear.yml", LINEAR % "bfloat16")
        result = self.run_ranks(2, "merge", "linear.yml", "out", "--trace", "nowhere/trace.json")
        self.assert_ends(result, 5)
        self.assertIn("nowhere/trace.json", result.stderr)
        self.assertFalse(os.path.exists(self.path("out")))

    def forward_pass_is_on_it(self):
        self.models("model")
        self.write("ids.txt", "[1, 2, 3]\n")
        self.assert_ends(self.run_command("check", "model", "--token-ids", "ids.txt", "--trace", "trace.json"), 0)
        names = {span["name"] for row in self.assert_spans("trace.json")[1].values() for span in row}
        self.assertLessEqual({"multiply", "read"}, names)


class verifying(CliTest):
    def setUp(self):
        super().setUp()
        self.models("a", "b")
        self.merge_linear("--out-shard-size", "120k")
        self.assertEqual([name for name in sorted(os.listdir(self.path("out"))) if name.endswith(".safetensors")], SHARDS)

    def assert_differs(self, *names):
        result = self.run_command("verify", "out")
        self.assert_ends(result, 8)
        for name in names:
            self.assertIn("out/" + name, result.stderr)

    def flipped_byte_is_found(self):
        with open(self.path("out", SHARDS[1]), "r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))
        self.assert_differs(SHARDS[1])

    def missing_file_is_found(self):
        os.remove(self.path("out", SHARDS[0]))
        self.assert_differs(SHARDS[0])

    def swapped_files_are_found(self):
        first, second = (self.path("out", name) for name in SHARDS)
        os.rename(first, first + ".tmp")
        os.rename(second, first)
        os.rename(first + ".tmp", second)
        self.assert_differs(*SHARDS)

    def directory_without_manifest_is_refused(self):
        result = self.run_command("verify", "a")
        self.assert_ends(result, 3)
        self.assertIn("moeweld_manifest.json", result.stderr)


class storing(CliTest):
    """--writer, --format and convert."""

    def writers_give_the_same_bytes(self):
        self.models("a", "b")
        self.merge_linear("--out-shard-size", "120k")
        expected = {name: data for name, data in tree(self.path("out")).items() if name != "moeweld_manifest.json"}
        for writer in ("mpiio", "gather"):
            result = self.run_ranks(3, "merge", "linear.yml", writer, "--out-shard-size", "120k", "--writer", writer)
            self.assert_ends(result, 0)
            found = tree(self.path(writer))
            self.assertTrue({name for name in expected if found.get(name) != expected[name]} == set(), writer)
            self.assert_ends(self.run_command("verify", writer), 0)

    def balance_moves_work_or_leaves_it(self):
        self.models("a", "b", hidden=256, intermediate=512, vocab=4000)
        self.merge_linear()
        expected = {name: data for name, data in tree(self.path("out")).items() if name != "moeweld_manifest.json"}
        for balance in ("dynamic", "static"):
            result = self.run_ranks(2, "merge", "linear.yml", balance, "--balance", balance, "--log-format", "json")
            self.assert_ends(result, 0)
            found = tree(self.path(balance))
            self.assertEqual({name for name in expected if found.get(name) != expected[name]}, set(), balance)
            ranks = next(json.loads(line) for line in result.stdout.splitlines() if '"summary"' in line)["ranks"]
            # Each asks at least once, and hears that there is nothing left.
            self.assertEqual([rank["num_asked"] > 0 for rank in ranks], [balance == "dynamic"] * 2)
        self.assert_ends(self.run_command("merge", "linear.yml", "wrong", "--balance", "fair"), 2)

    def writers_write_several_models(self):
        tiny_models.write_model(self.path("m"), family="mixtral", experts=4)
        self.assert_ends(self.run_command("extract", "m", "out", "--all", "-q"), 0)
        expected = {name: data for name, data in tree(self.path("out")).items() if not name.endswith("moeweld_manifest.json")}
        for writer in ("mpiio", "gather"):
            self.assert_ends(self.run_ranks(3, "extract", "m", writer, "--all", "-q", "--writer", writer), 0)
            found = tree(self.path(writer))
            self.assertEqual({name for name in expected if found.get(name) != expected[name]}, set(), writer)
        result = self.run_command("extract", "m", "h", "--all", "--format", "hdf5")
        self.assert_ends(result, 4)
        self.assertIn("moeweld convert", result.stderr)
        self.assertFalse(os.path.exists(self.path("h")))

    def hdf5_and_back_bit_for_bit(self):
        tiny_models.write_model(self.path("m"), family="mixtral", experts=4, shards=2)
        self.assert_ends(self.run_command("convert", "m", "h", "--format", "hdf5"), 0)
        self.assertEqual([name for name in sorted(os.listdir(self.path("h"))) if name.startswith("model.")], ["model.h5"])
        self.assert_ends(self.run_command("verify", "h"), 0)
        self.assert_ends(self.run_command("diff", "m", "h"), 0)
        self.assert_ends(self.run_command("convert", "h", "back"), 0)
        self.assertEqual(tiny_models.read_model(self.path("back")), tiny_models.read_model(self.path("m")))
        # Of a model that moeweld wrote the very file comes back.
        self.assert_ends(self.run_ranks(2, "convert", "back", "h2", "--format", "hdf5"), 0)
        self.assert_ends(self.run_ranks(2, "convert", "h2", "again"), 0)
        with open(self.path("back", "model.safetensors"), "rb") as one, open(self.path("again", "model.safetensors"), "rb") as other:
            self.assertTrue(one.read() == other.read())
        with open(self.path("m", "config.json"), "rb") as one, open(self.path("again", "config.json"), "rb") as other:
            self.assertEqual(one.read(), other.read())
        with open(self.path("h", "model.h5"), "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x55")
        self.assert_ends(self.run_command("verify", "h"), 8)

    def merges_into_hdf5_have_the_same_bytes_on_any_ranks(self):
        # Rows of odd length, so that windows and ranks meet within rows.
        self.models("a", "b", hidden=160, intermediate=442, vocab=8111, heads=4, kv_heads=2)
        self.merge_linear("--memory-limit", "200MiB")
        for ranks in (1, 2, 3):
            out = "h%d" % ranks
            arguments = ("merge", "linear.yml", out, "--format", "hdf5", "--memory-limit", "200MiB")
            self.assert_ends(self.run_command(*arguments) if ranks == 1 else self.run_ranks(ranks, *arguments), 0)
            self.assert_ends(self.run_command("verify", out), 0)
        files = [tree(self.path("h%d" % ranks))["model.h5"] for ranks in (1, 2, 3)]
        self.assertTrue(files[0] == files[1] == files[2])
        self.assert_ends(self.run_command("diff", "out", "h3"), 0)
        # A merge of HDF5 checkpoints is the merge of the same tensors.
        for name in ("a", "b"):
            self.assert_ends(self.run_command("convert", name, name + "5", "--format", "hdf5"), 0)
            shutil.rmtree(self.path(name))
            os.rename(self.path(name + "5"), self.path(name))
        self.assert_ends(self.run_ranks(2, "merge", "linear.yml", "out5", "--memory-limit", "200MiB"), 0)
        self.assert_ends(self.run_command("diff", "out", "out5"), 0)

    def damaged_hdf5_is_refused(self):
        self.models("a")
        self.assert_ends(self.run_command("convert", "a", "h", "--format", "hdf5"), 0)
        os.truncate(self.path("h", "model.h5"), os.path.getsize(self.path("h", "model.h5")) - 1)
        result = self.run_command("inspect", "h")
        self.assert_ends(result, 3)
        self.assertIn("h/model.h5", result.stderr)
        self.assert_ends(self.run_command("convert", "a", "x", "--format", "hdf5", "--writer", "gather"), 2)


class reporting(CliTest):
    """--stats and report."""

    def assert_page(self, name):
        """The page, as an HTML parser and an XML parser see it, checked for what it may not hold."""
        with open(self.path(name), encoding="utf-8") as file:
            text = file.read()
        self.assertTrue(text.startswith("<!DOCTYPE html>\n"))
        xml.etree.ElementTree.fromstring(text.split("\n", 1)[1])
        self.assertNotRegex(text, r"(?i)https?:|<script|<link|<iframe|\bon[a-z]+=|url\(|@import")
        for source in re.findall(r'(?:src|href)="([^"]*)"', text):
            self.assertTrue(source.startswith(("#", "data:image/png;base64,")), source)
        return text

    def statistics_are_drawn_as_one_page(self):
        self.models("a", "b", "base")
        self.write("ties.yml", TIES)
        result = self.run_command("merge", "ties.yml", "out", "--stats", "stats.h5")
        self.assert_ends(result, 0)
        self.assertIn("statistics of 21 tensors: stats.h5", result.stdout)
        self.assert_ends(self.run_command("verify", "out", "-q"), 0)
        result = self.run_command("report", "stats.h5")
        self.assert_ends(result, 0)
        self.assertEqual(result.stdout, "stats.html\n")
        text = self.assert_page("stats.html")
        self.assertIn("<h1>ties of 2 models onto base</h1>", text)
        for word in ("self_attn.q_proj", "mlp.down_proj", "Sign conflicts", "Density kept", "Cosine", "no value", "layer 1: ", "merge_method: ties",
                     "model.embed_tokens.weight"):
            self.assertIn(word, text)
        result = self.run_command("report", "stats.h5", "--output", "other.html", "-q")
        self.assert_ends(result, 0)
        self.assertEqual(result.stdout, "")
        self.assertEqual(self.assert_page("other.html"), text)

    def statistics_have_the_same_bytes_on_any_ranks_and_change_none_of_the_output(self):
        self.models("a", "b", "base")
        self.write("ties.yml", TIES)
        self.assert_ends(self.run_command("merge", "ties.yml", "plain", "-q"), 0)
        self.assert_ends(self.run_command("merge", "ties.yml", "one", "-q", "--stats", "one.h5"), 0)
        files = []
        for ranks, writer in ((2, "posix"), (3, "gather")):
            name = "out-%d" % ranks
            self.assert_ends(self.run_ranks(ranks, "merge", "ties.yml", name, "-q", "--stats", name + ".h5", "--writer", writer), 0)
            files.append(name)
        expected = tree(self.directory)
        for name in files:
            self.assertTrue(expected[name + ".h5"] == expected["one.h5"], name)
        for name in ["one"] + files:
            for file in ("model.safetensors", "model.safetensors.index.json"):
                if "plain/" + file in expected:
                    self.assertTrue(expected[name + "/" + file] == expected["plain/" + file], name)

    def experts_and_several_outputs_have_maps_of_their_own(self):
        tiny_models.write_model(self.path("m"), family="mixtral", experts=4)
        self.assert_ends(self.run_ranks(2, "extract", "m", "out", "--all", "-q", "--stats", "all.h5"), 0)
        self.assert_ends(self.run_command("report", "all.h5"), 0)
        text = self.assert_page("all.html")
        self.assertIn("mlp.gate_proj, each of 4 experts", text)
        self.assert_ends(self.run_command("reduce", "m", "less", "--experts", "3", "-q", "--stats", "less.h5"), 0)
        self.assert_ends(self.run_command("report", "less.h5"), 0)
        self.assertRegex(self.assert_page("less.html"), "experts.*, each of 3 experts")

    def an_unwritable_place_is_found_before_the_merge(self):
        self.models("a", "b")
        self.write("linear.yml", LINEAR % "bfloat16")
        os.mkdir(self.path("taken"))
        for place, word in (("none/stats.h5", "no such directory"), ("taken", "is a directory"), ("taken/", "directory")):
            result = self.run_ranks(2, "merge", "linear.yml", "out", "--stats", place, "--memory-limit", "1M")
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(word, result.stderr)
            self.assertIn("--memory-limit", result.stderr)  # all problems at once
            self.assertFalse(os.path.exists(self.path("out.partial")))

    def a_merge_whose_statistics_fail_is_complete(self):
        self.models("a", "b")
        self.write("linear.yml", LINEAR % "bfloat16")
        os.mkdir(self.path("stats.h5.tmp"))
        result = self.run_ranks(2, "merge", "linear.yml", "out", "--stats", "stats.h5")
        self.assert_ends(result, 5)
        self.assertRegex(result.stderr.replace("\n", " "), r"out is complete, but its +statistics could +not be +written")
        self.assertNotIn("Nothing was written", result.stderr)
        self.assert_ends(self.run_command("verify", "out", "-q"), 0)

    def a_continued_merge_says_what_has_no_statistics(self):
        self.models("a", "b")
        self.merge_linear()
        result = self.run_command("merge", "linear.yml", "out", "--resume", "--stats", "stats.h5")
        self.assert_ends(result, 0)
        self.assertIn("stats.h5 was not written", result.stderr)
        self.assertFalse(os.path.exists(self.path("stats.h5")))

    def what_is_no_statistics_file_is_refused(self):
        self.models("a", "b")
        self.merge_linear("--format", "hdf5")
        result = self.run_command("report", "out/model.h5")
        self.assert_ends(result, 3)
        self.assertIn("moeweld.hdf5/1", result.stderr)
        self.assertIn("moeweld.stats/1", result.stderr)
        result = self.run_command("report", "out/config.json")
        self.assert_ends(result, 3)
        self.assertIn("not an HDF5 file", result.stderr)
        result = self.run_command("report", "none.h5")
        self.assert_ends(result, 3)
        self.assertIn("none.h5", result.stderr)
        self.assertEqual([name for name in os.listdir(self.directory) if name.endswith(".html")], [])


class comparing(CliTest):
    def equal_models_end_with_zero(self):
        self.models("a")
        tiny_models.write_model(self.path("same"), seed=0, shards=3)
        for ranks in (1, 2):
            result = self.run_ranks(ranks, "diff", "a", "same") if ranks > 1 else self.run_command("diff", "a", "same")
            self.assert_ends(result, 0)
            self.assertRegex(result.stdout, r"\Aa and same: 21 of 21 tensors equal \(.* read in .*\)\n\Z")

    def a_changed_element_is_named_with_its_size(self):
        self.models("a", dtype="float32")
        shutil.copytree(self.path("a"), self.path("b"))
        name = "model.layers.1.mlp.up_proj.weight"
        with open(self.path("b", "model.safetensors"), "r+b") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            begin = 8 + length + json.loads(file.read(length))[name]["data_offsets"][0] + 4 * 5
            file.seek(begin)
            before = struct.unpack("<f", file.read(4))[0]
            file.seek(begin)
            file.write(struct.pack("<f", before + 2))
        result = self.run_command("diff", "a", "b")
        self.assert_ends(result, 11)
        self.assertRegex(result.stdout, r"(?m)^%s  1 of \d+ elements, at most by [12]\.?\d*, cosine 0\.\d+$" % re.escape(name))
        self.assertIn("20 of 21 tensors equal", result.stdout)
        both = []
        for ranks in (1, 2):
            result = self.run_ranks(ranks, "diff", "a", "b", "--json")
            self.assert_ends(result, 11)
            both.append(json.loads(result.stdout))
            both[-1].pop("seconds")
        self.assertEqual(both[0], both[1])
        self.assertFalse(both[0]["equal"])
        changed = [tensor for tensor in both[0]["tensors"] if not tensor["equal"]]
        self.assertEqual([(tensor["name"], tensor["different_elements"], tensor["max_difference_at"]) for tensor in changed], [(name, 1, 5)])
        self.assertAlmostEqual(changed[0]["max_difference"], 2, delta=1e-6)
        self.assertLess(changed[0]["cosine"], 1)

    def experts_of_unlike_layouts_are_the_same(self):
        for name, fused in (("m", False), ("f", True)):
            tiny_models.write_model(self.path(name), family="mixtral", experts=4, fused=fused)
        before = self.run_command("diff", "m", "m")
        self.assert_ends(before, 0)
        result = self.run_command("diff", "m", "f", "--json")
        found = json.loads(result.stdout)
        self.assertEqual((found["only_in_a"], found["only_in_b"]), ([], []))
        self.assertIn("model.layers.0.block_sparse_moe.experts.3.w2.weight", {tensor["name"] for tensor in found["tensors"]})

    def a_missing_model_is_an_error(self):
        self.models("a")
        result = self.run_command("diff", "a", "nowhere")
        self.assert_ends(result, 3)
        self.assertIn("nowhere", result.stderr)


class looking(CliTest):
    def inspect_json_describes_a_mixtral(self):
        for name, fused, layout in (("m", False, "per_expert"), ("f", True, "fused")):
            tiny_models.write_model(self.path(name), family="mixtral", experts=4, fused=fused, shards=2)
            result = self.run_command("inspect", name, "--json")
            self.assert_ends(result, 0)
            found = json.loads(result.stdout)
            self.assertEqual(found["schema"], "moeweld.inspect/1")
            self.assertEqual((found["architecture"], found["family"], found["experts"]), ("MixtralForCausalLM", "mixtral", 4))
            self.assertEqual(found["layout"], layout)
            tensors = tiny_models.read_model(self.path(name))
            self.assertEqual(found["parameters"], sum(len(data) // 2 for _, _, data in tensors.values()))
            self.assertEqual(found["tensors"], len(tensors))

    def inspect_text_names_the_family(self):
        self.models("a", family="qwen3")
        result = self.run_command("inspect", "a")
        self.assert_ends(result, 0)
        self.assertIn("Qwen3ForCausalLM", result.stdout)

    def inspect_says_where_the_head_is(self):
        for tied, head, config, words in ((False, True, {}, "lm_head.weight"), (True, False, {}, "tied to the embedding"),
                                          (True, False, {"architectures": ["GPTUnknown"], "tie_word_embeddings": False}, "none"),
                                          (True, False, {"architectures": ["GPTUnknown"], "tie_word_embeddings": None}, "does not say")):
            tiny_models.write_model(self.path("m"), tied=tied, config=config)
            found = json.loads(self.run_command("inspect", "m", "--json").stdout)
            self.assertEqual(found["tied_head"], words == "tied to the embedding", config)
            result = self.run_command("inspect", "m")
            self.assertIn(words, next(line for line in result.stdout.splitlines() if line.startswith("head")))
            self.assertEqual(head, "lm_head.weight" in tiny_models.read_model(self.path("m")))
            shutil.rmtree(self.path("m"))

    def extract_gives_the_expert_back(self):
        tiny_models.write_model(self.path("m"), family="mixtral", experts=4)
        self.assert_ends(self.run_command("extract", "m", "out", "--expert", "2"), 0)
        source, output = tiny_models.read_model(self.path("m")), tiny_models.read_model(self.path("out"))
        for ours, theirs in (("gate", "w1"), ("down", "w2"), ("up", "w3")):
            self.assertEqual(output["model.layers.1.mlp.%s_proj.weight" % ours],
                             source["model.layers.1.block_sparse_moe.experts.2.%s.weight" % theirs])
        with open(self.path("out", "config.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["architectures"], ["MistralForCausalLM"])

    def reduce_keeps_the_experts_of_the_highest_scores(self):
        tiny_models.write_model(self.path("m"), family="mixtral", experts=4)
        self.write("scores.json", json.dumps({"0": [1, 2, 3, 4], "1": [4, 1, 1, 3]}))
        flags = ("m", "out", "--experts", "2", "--scores", "scores.json")
        dry = self.run_command("reduce", *flags, "--dry-run")
        self.assert_ends(dry, 0)
        self.assertIn("layer 1: experts 0, 3 kept; 1, 2 dropped", dry.stdout)
        self.assertFalse(os.path.exists(self.path("out")))
        self.assert_ends(self.run_command("reduce", *flags), 0)
        source, output = tiny_models.read_model(self.path("m")), tiny_models.read_model(self.path("out"))
        kept = {0: (2, 3), 1: (0, 3)}
        for layer, experts in kept.items():
            prefix = "model.layers.%d.block_sparse_moe." % layer
            shape, data = source[prefix + "gate.weight"][1:]
            row = len(data) // 4
            self.assertEqual(output[prefix + "gate.weight"][2], b"".join(data[e * row:(e + 1) * row] for e in experts))
            for ours, theirs in enumerate(experts):
                for matrix in ("w1", "w2", "w3"):
                    name = prefix + "experts.%d." + matrix + ".weight"
                    self.assertEqual(output[name % ours], source[name % theirs])
        self.assertEqual(set(source) - set(output), {"model.layers.%d.block_sparse_moe.experts.%d.w%d.weight" % (layer, expert, matrix)
                                                     for layer in kept for expert in (2, 3) for matrix in (1, 2, 3)})
        with open(self.path("out", "config.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["num_local_experts"], 2)
        with open(self.path("out", "moeweld_manifest.json"), encoding="utf-8") as file:
            self.assertIn("layer 0: experts 2, 3 kept; 0, 1 dropped", json.load(file)["composition"])

    def reduce_goes_by_router_norms_and_gives_the_same_bytes_on_ranks(self):
        tiny_models.write_model(self.path("m"), family="mixtral", experts=8)
        self.assert_ends(self.run_command("reduce", "m", "one", "--experts", "5"), 0)
        self.assert_ends(self.run_ranks(3, "reduce", "m", "three", "--experts", "5"), 0)
        one, three = tree(self.path("one")), tree(self.path("three"))
        for name in one:
            if name not in ("moeweld_manifest.json", "README.md"):
                self.assertEqual(one[name], three[name], name)
        source, output = tiny_models.read_model(self.path("m")), tiny_models.read_model(self.path("one"))
        data = source["model.layers.0.block_sparse_moe.gate.weight"][2]
        row = len(data) // 8
        values = struct.unpack("<%df" % (len(data) // 2), b"".join(b"\0\0" + data[i:i + 2] for i in range(0, len(data), 2)))
        norms = [sum(x * x for x in values[e * row // 2:(e + 1) * row // 2]) for e in range(8)]
        kept = sorted(sorted(range(8), key=lambda e: -norms[e])[:5])
        self.assertEqual(output["model.layers.0.block_sparse_moe.gate.weight"][2], b"".join(data[e * row:(e + 1) * row] for e in kept))

    def reduce_says_what_is_wrong(self):
        tiny_models.write_model(self.path("m"), family="mixtral", experts=4)
        for flags, code, words in ((("m", "out"), 2, "--experts"), (("m", "--experts", "3"), 2, "OUT"),
                                   (("m", "out", "--experts", "5"), 2, "has only 4 experts"), (("m", "out", "--experts", "1"), 2, "takes 2 experts"),
                                   (("m", "out", "--experts", "3", "--scores", "none.json"), 3, "none.json")):
            result = self.run_command("reduce", *flags)
            self.assert_ends(result, code)
            self.assertIn(words, result.stderr)
            self.assertFalse(os.path.exists(self.path("out")))

    def extract_all_reads_once_and_writes_every_expert_alike_on_any_ranks(self):
        source = tiny_models.write_model(self.path("m"), family="mixtral", experts=4)
        result = self.run_command("extract", "m", "out", "--all", "--log-format", "json")
        self.assert_ends(result, 0)
        summary = json.loads(result.stdout.splitlines()[-1])
        self.assertEqual(summary["num_files"], 8)
        self.assertLess(summary["read_bytes"], sum(os.path.getsize(os.path.join(source, name)) for name in os.listdir(source)))
        self.assertEqual(sorted(os.listdir(self.path("out"))), ["expert-%d" % expert for expert in range(4)])
        self.assert_ends(self.run_command("verify", "out"), 0)
        self.assert_ends(self.run_ranks(3, "extract", "m", "ranks", "--all", "-q"), 0)
        for name, content in tree(self.path("ranks")).items():
            if not name.endswith("manifest.json"):  # has the command line
                self.assertEqual(content, tree(self.path("out"))[name], name)
        for expert in (0, 3):
            self.assert_ends(self.run_command("extract", "m", "one-%d" % expert, "--expert", str(expert), "-q"), 0)
            self.assertEqual(tiny_models.read_model(self.path("one-%d" % expert)), tiny_models.read_model(self.path("out", "expert-%d" % expert)))
            self.assertTrue(os.path.exists(self.path("out", "expert-%d" % expert, "tokenizer.json")))
        with open(self.path("out", "expert-1", "model-00002-of-00002.safetensors"), "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"x")
        result = self.run_command("verify", "out")
        self.assert_ends(result, 8)
        self.assertIn("expert-1/model-00002-of-00002.safetensors", result.stderr)
        shutil.rmtree(self.path("out", "expert-1"))
        os.remove(self.path("out", "expert-3", "moeweld_manifest.json"))
        result = self.run_command("verify", "out")
        self.assert_ends(result, 8)
        for expert in (1, 3):
            self.assertIn("out/expert-%d: is missing, or has no manifest" % expert, result.stderr)
        self.assertIn("2 problems", result.stderr)

    def extract_wants_to_know_which_experts(self):
        tiny_models.write_model(self.path("m"), family="mixtral", experts=4)
        for flags, words in (((), "--expert"), (("--all", "--average"), "--average"), (("--expert", "4"), "experts 0 to 3"),
                             (("--all", "--weights", "1,2,3,4"), "--weights"), (("--merge", "ties"), "--base N"),
                             (("--merge", "linear", "--parameter", "weight"), "NAME=VALUE"), (("--merge", "linear", "--parameter", "weight=a"), "NAME=VALUE"),
                             (("--merge", "linear", "--parameter", "wait=1"), "'wait'"), (("--average", "--weights", "1,2"), "4 experts"),
                             (("--all", "--gated-shared", "keep"), "--gated-shared")):
            result = self.run_command("extract", "m", "out", *flags)
            self.assert_ends(result, 2)
            self.assertIn(words, result.stderr)
        self.assertFalse(os.path.exists(self.path("out")))


class tokenizing(CliTest):
    """A vocabulary of letters: a is 0, b is 1, "ab" is 2, <s> is 3 and begins sequences."""

    def setUp(self):
        super().setUp()
        os.mkdir(self.path("model"))
        token = {"id": 3, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        self._write_json("model/tokenizer.json", {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [token], "normalizer": None, "pre_tokenizer": None,
            "post_processor": None, "decoder": None,
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<s>": 3}, "merges": ["a b"]}})
        self._write_json("model/tokenizer_config.json", {"bos_token": "<s>"})

    def _write_json(self, name, value):
        tiny_models.write_json(self.path(name), value)

    def _tokenize(self, *arguments, text=b""):
        return subprocess.run([MOEWELD, "tokenize", "model", *arguments], cwd=self.directory, input=text, capture_output=True,
                              timeout=TIMEOUT_SECONDS)

    def a_file_and_standard_input_give_a_list_a_line(self):
        text = b"abba\n\na<s>\r"
        self.write("text.txt", text.decode())
        for result in (self._tokenize("text.txt"), self._tokenize(text=text)):
            self.assert_ends(result, 0)
            self.assertEqual(result.stdout, b"[2, 1, 0]\n[]\n[0, 3]\n")
        self.assertEqual(self._tokenize("--bos", text=b"a\n\n").stdout, b"[3, 0]\n[3]\n")
        self.assertEqual(self._tokenize(text=b"").stdout, b"")

    def a_bad_line_is_named_and_those_before_it_are_printed(self):
        with open(self.path("text.txt"), "wb") as file:
            file.write(b"ab\na\xff\nb\n")
        for arguments, text, source in ((("text.txt",), b"", b"text.txt:2: "), ((), b"ab\na\xff\nb\n", b"standard input:2: ")):
            result = self._tokenize(*arguments, text=text)
            self.assert_ends(result, 3)
            self.assertEqual(result.stdout, b"[2]\n")
            self.assertIn(source, result.stderr)
            self.assertIn(b"not valid UTF-8 at byte 1", result.stderr)
        result = self._tokenize("nowhere.txt")
        self.assert_ends(result, 3)
        self.assertIn(b"nowhere.txt", result.stderr)

    def a_model_without_tokenizer_and_a_damaged_one_are_named(self):
        self.write("model/tokenizer.json", "{\"model\": ")
        result = self._tokenize(text=b"a\n")
        self.assert_ends(result, 3)
        self.assertIn(b"model/tokenizer.json", result.stderr)
        self._write_json("model/tokenizer.json", {"model": {"type": "Unigram", "vocab": []}})
        result = self._tokenize(text=b"a\n")
        self.assert_ends(result, 4)
        self.assertIn(b"Unigram", result.stderr)
        os.remove(self.path("model/tokenizer.json"))
        result = self._tokenize(text=b"a\n")
        self.assert_ends(result, 3)
        self.assertIn(b"neither tokenizer.json nor tokenizer.model", result.stderr)
        shutil.rmtree(self.path("model"))
        result = self._tokenize(text=b"a\n")
        self.assert_ends(result, 3)
        self.assertIn(b"'model'", result.stderr)
        self.assertEqual(result.stdout, b"")


CLASSES = (arguments, checking, problems, merging, node, tracing, verifying, storing, reporting, comparing, looking, tokenizing)
HELPERS = {name for name in dir(CliTest)}


def all_tests():
    """A test is a method of one of the classes that is no helper: names are sentences, without a prefix."""
    return ["%s.%s" % (group.__name__, name) for group in CLASSES for name in vars(group)
            if not name.startswith(("_", "assert_")) and name not in HELPERS and callable(vars(group)[name])]


def main():
    chosen = sys.argv[1:] or all_tests()
    groups = {group.__name__: group for group in CLASSES}
    suite = unittest.TestSuite(groups[name.split(".")[0]](name.split(".")[1]) for name in chosen)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(0 if result.wasSuccessful() and result.testsRun == len(chosen) else 1)


if __name__ == "__main__":
    main()
