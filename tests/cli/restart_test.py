#!/usr/bin/env python3
"""Merges that are killed, run out of disk or lose their inputs, from outside: what is left of them and what they come to.

restart_test.py [class.method...]     Environment as for cli_test.py. Standard library only.
"""

import json
import os
import signal
import subprocess
import sys
import time
import unittest

from cli_test import MOEWELD, MPIEXEC, TIES, TIMEOUT_SECONDS, CliTest
import kill_and_resume

SKIPPED = 77
# Of a disk: what a file's last page and the directory cost is not known before.
PAGE_BYTES = 4096


class killing(CliTest):
    """bench/kill_trials.py has many more seeds."""

    def _trials(self, kind, seeds):
        work = kill_and_resume.Work(self.path(kind), kind, MOEWELD, MPIEXEC, size=kill_and_resume.SMALL_SIZE)
        reports = [work.trial(seed) for seed in seeds]
        print(kind, *reports, sep="\n")
        self.assertGreater(sum(len(report["kills"]) for report in reports), 0, "no job was killed before its end")

    def dense_merge_continues_to_the_same_bytes(self):
        self._trials("dense", range(4))

    def assembly_with_hidden_gates_continues_to_the_same_bytes(self):
        self._trials("assembly", range(3))

    def extraction_of_all_experts_continues_to_the_same_bytes(self):
        self._trials("extraction", range(3))

    def aligned_merge_continues_to_the_same_bytes(self):
        self._trials("aligned", range(3))

    def fp8_merge_continues_to_the_same_bytes(self):
        self._trials("fp8", range(3))

    def router_rows_of_another_processor_are_kept(self):
        """Rows are float32 here, so that the last bits of the two processors' are not rounded away."""
        self.models("a", "b", layers=2, hidden=256, intermediate=2048, vocab=2000, heads=8, kv_heads=2)
        self.write("config.yml", "base_model: a\ngate_mode: hidden\ndtype: float32\nexperts:\n  - {source_model: a, positive_prompts: ['code and more']}\n"
                                 "  - {source_model: b, positive_prompts: ['1 + 1 = 2']}\n")

        def run_on(core, *arguments):
            return subprocess.run([MOEWELD, "merge", "config.yml", *arguments], cwd=self.directory, env={**os.environ, "OPENBLAS_CORETYPE": core},
                                  capture_output=True, text=True, timeout=TIMEOUT_SECONDS)

        for core in ("Prescott", "Nehalem"):
            self.assert_ends(run_on(core, core), 0)
        first, second = (kill_and_resume.model_bytes(self.path(core)) for core in ("Prescott", "Nehalem"))
        self.assertNotEqual(first, second, "both processors compute the same rows, and this test shows nothing")
        self._kill_after_first_record({"OPENBLAS_CORETYPE": "Prescott"})
        self.assert_ends(run_on("Nehalem", "out", "--resume"), 0)
        self.assertTrue(kill_and_resume.model_bytes(self.path("out")) == first)
        with open(self.path("out", "moeweld_manifest.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["blas_core"], "Prescott")

    def _kill_after_first_record(self, variables):
        """One that is killed within its first record has nothing of it."""
        journal = self.path("out.partial", "journal", "00001-000000")
        for _ in range(20):
            process = subprocess.Popen([MOEWELD, "merge", "config.yml", "out", "--threads", "1", "--journal-interval", "0", "--force"],
                                       cwd=self.directory, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and not kill_and_resume.has_whole_record(journal):
                time.sleep(0.0005)
            process.kill()
            if process.wait(TIMEOUT_SECONDS) != 0 and not os.path.exists(self.path("out")) and kill_and_resume.has_whole_record(journal):
                return
        self.fail("no run was killed between its first record and its end")


class inputs(CliTest):
    def setUp(self):
        super().setUp()
        self.models("base", "a", "b", layers=2, hidden=1024, intermediate=4096, vocab=4000, heads=16, kv_heads=4)
        self.write("ties.yml", TIES)

    def _disturb(self, disturb):
        """A merge that is stopped while disturb() runs, once it has begun to write."""
        process = subprocess.Popen([MOEWELD, "merge", "ties.yml", "out", "--threads", "1", "--memory-limit", "128MiB", "--journal-interval", "0"],
                                   cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        journal = self.path("out.partial", "journal", "00001-000000")
        while process.poll() is None and not os.path.exists(journal):
            time.sleep(0.0005)
        process.send_signal(signal.SIGSTOP)
        disturb()
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
        self.assertEqual(process.returncode, 3, stderr)
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertFalse(os.path.exists(self.path("out.partial")), "what was made of a bad input is no beginning")
        return stderr.replace("\n    ", " ")

    def one_that_is_cut_on_the_way_is_named(self):
        path = self.path("b", "model.safetensors")
        self.assertIn("b/model.safetensors", self._disturb(lambda: os.truncate(path, os.path.getsize(path) // 2)))

    def one_that_is_written_to_on_the_way_is_named(self):
        path = self.path("a", "model.safetensors")
        stderr = self._disturb(lambda: os.utime(path, ns=(1, 1)))
        self.assertIn("a/model.safetensors: the file changed since the merge began", stderr)


class disks(CliTest):
    def setUp(self):
        super().setUp()
        self.disk = self.path("disk")
        os.mkdir(self.disk)

    def _size(self, size_bytes, *options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(("size=%d" % size_bytes, *options)), "moeweld_test", self.disk],
                              capture_output=True, text=True, timeout=TIMEOUT_SECONDS)

    def full_one_is_no_loss(self):
        """From a disk that has room for what was planned, but not for the journal, to one that lacks the last page of the last file."""
        self.models("base", "a", "b", layers=2, hidden=128, intermediate=512, vocab=1000)
        self.write("ties.yml", TIES)
        self.assert_ends(self.run_command("merge", "ties.yml", "whole"), 0)
        whole = kill_and_resume.model_bytes(self.path("whole"))
        planned = sum(len(content) for name, content in whole.items() if name not in ("README.md", "model.safetensors.index.json"))
        mounted = self._size(planned)
        if mounted.returncode != 0:
            self.skipTest("no tmpfs can be mounted here: " + mounted.stderr)
        self.addCleanup(subprocess.run, ["umount", self.disk], timeout=TIMEOUT_SECONDS)
        codes = []
        for pages in range(0, 24, 2):
            self._size(planned + pages * PAGE_BYTES, "remount")
            result = self.run_command("merge", "ties.yml", "disk/out", "--journal-interval", "0")
            codes.append(result.returncode)
            if result.returncode != 0:
                self.assert_ends(result, 6)
                self.assertFalse(os.path.exists(self.path("disk", "out")))
                self._size(2 * planned + (1 << 20), "remount")
                self.assert_ends(self.run_command("merge", "ties.yml", "disk/out", "--resume"), 0)
            self.assertTrue(kill_and_resume.model_bytes(self.path("disk", "out")) == whole, pages)
            self.assertEqual(os.listdir(self.disk), ["out"])
            subprocess.run(["rm", "-r", self.path("disk", "out")], check=True)
        print("exit codes by free pages:", codes)
        self.assertIn(6, codes)
        self.assertEqual(codes[-1], 0)


class registration(CliTest):
    def every_test_is_registered(self):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "CMakeLists.txt"), encoding="utf-8") as file:
            text = file.read().split("set(restart_tests")[1].split(")")[0]
        self.assertEqual({word for word in text.split() if "." in word}, set(all_tests()))


CLASSES = (killing, inputs, disks, registration)
HELPERS = {name for name in dir(CliTest)}


def all_tests():
    return ["%s.%s" % (group.__name__, name) for group in CLASSES for name in vars(group)
            if not name.startswith("_") and name not in HELPERS and callable(vars(group)[name])]


def main():
    chosen = sys.argv[1:] or all_tests()
    groups = {group.__name__: group for group in CLASSES}
    suite = unittest.TestSuite(groups[name.split(".")[0]](name.split(".")[1]) for name in chosen)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if not result.wasSuccessful() or result.testsRun != len(chosen):
        sys.exit(1)
    sys.exit(SKIPPED if result.skipped else 0)


if __name__ == "__main__":
    main()
