#!/usr/bin/env python3
"""Jobs that hang, on real processes: a disk that does not answer, ranks that are stopped, and what must not be taken for it.

watchdog_test.py [class.method...]     Environment as for cli_test.py, and SICK_DISK: tests/support/sick_disk. Standard library only.
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

# More than is read of headers.
TENSOR_BYTES = 1 << 17
SICK_DISK = os.environ.get("SICK_DISK", "")
STALLED = 12
# Long enough for a machine that is busy with other tests.
STALL_SECONDS = 3
# Of the start, the end of the other ranks, and of waiting ranks' patience.
GRACE_SECONDS = 15


class WatchdogTest(CliTest):
    def setUp(self):
        super().setUp()
        self.models("base", "a", "b", layers=2, hidden=512, intermediate=2048, vocab=2000, heads=8, kv_heads=4)
        self.write("ties.yml", TIES)
        self.assert_ends(self.run_command("merge", "ties.yml", "reference", "-q"), 0)
        self.write("sick", "")

    def sick(self, path, calls, ms=None, rank=None, least_bytes=0):
        """The environment in which calls on files of that path hang, or take so much longer, as long as the file `sick` is there."""
        variables = {"LD_PRELOAD": SICK_DISK, "SICK_DISK_PATH": self.path(path), "SICK_DISK_CALLS": calls, "SICK_DISK_WHILE": self.path("sick"),
                     "SICK_DISK_BYTES": str(least_bytes)}
        if ms is not None:
            variables["SICK_DISK_MS"] = str(ms)
        if rank is not None:
            variables["SICK_DISK_RANK"] = str(rank)
        return {**os.environ, **variables}

    def start(self, ranks, environment, *arguments):
        launcher = () if ranks == 1 else (MPIEXEC, "--oversubscribe", "-n", str(ranks))
        return subprocess.Popen([*launcher, MOEWELD, *arguments, "--threads", "1", "--memory-limit", "128MiB", "--stall-timeout", str(STALL_SECONDS)],
                                cwd=self.directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ends(self, process, code):
        stdout, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
        self.assertEqual(process.returncode, code, "stdout: %s\nstderr: %s" % (stdout, stderr))
        return stderr

    def hangs(self, ranks, environment, *arguments):
        """What a job that is ended by its watchdog says; it takes the timeout and not much more."""
        start = time.monotonic()
        said = self.ends(self.start(ranks, environment, *arguments), STALLED)
        self.assertGreater(time.monotonic() - start, STALL_SECONDS)
        self.assertLess(time.monotonic() - start, 2 * STALL_SECONDS + GRACE_SECONDS)
        return said

    def pids(self, process, ranks):
        """{rank: pid} of a job that has begun to write."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            result = {}
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open("/proc/%s/environ" % pid, "rb") as file:
                        variables = dict(item.split(b"=", 1) for item in file.read().split(b"\0") if b"=" in item)
                    if os.readlink("/proc/%s/cwd" % pid) == os.path.realpath(self.directory) and os.readlink("/proc/%s/exe" % pid) == os.path.realpath(MOEWELD):
                        result[int(variables.get(b"OMPI_COMM_WORLD_RANK", b"0"))] = int(pid)
                except OSError:
                    pass
            if len(result) == ranks and os.path.isdir(self.path("out.partial", "journal")):
                return result
            self.assertIsNone(process.poll(), "the job has ended")
            time.sleep(0.02)
        self.fail("the job has not begun after 30 s")

    def assert_continues(self, ranks=1):
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertTrue(os.path.isdir(self.path("out.partial", "journal")))
        os.remove(self.path("sick"))
        # A launcher may be gone before the last of its ranks is, whose lock holds as long.
        end = time.monotonic() + 30
        process = self.start(ranks, os.environ, "merge", "ties.yml", "out", "--resume")
        while process.wait(TIMEOUT_SECONDS) == 7 and time.monotonic() < end:
            process.communicate()
            process = self.start(ranks, os.environ, "merge", "ties.yml", "out", "--resume")
        self.ends(process, 0)
        self.assert_same_bytes()

    def assert_same_bytes(self):
        self.assertTrue(kill_and_resume.model_bytes(self.path("out")) == kill_and_resume.model_bytes(self.path("reference")))
        self.assertEqual([name for name in os.listdir(self.directory) if name.startswith("out")], ["out"])


class hanging(WatchdogTest):
    def read_is_named_and_the_merge_continues(self):
        said = self.hangs(1, self.sick("b/model", "read", least_bytes=TENSOR_BYTES), "merge", "ties.yml", "out")
        self.assertIn("rank 0 has made no progress", said)
        self.assertRegex(said, r"rank 0 \(process \d+ on \S+\) is in 'read b/model\S*' \(reader \d\), for \d+ s")
        self.assertIn("--resume", said)
        self.assert_continues()

    def write_and_sync_are_named(self):
        for call in ("write", "sync"):
            said = self.hangs(1, self.sick("out.partial/model", call), "merge", "ties.yml", "out", "--force", "--io", "buffered")
            self.assertRegex(said, r"is in '%s out.partial/model\S*' \(writer \d\)" % call)
        self.assert_continues()

    def rank_of_several_is_named_and_ends_all(self):
        said = self.hangs(3, self.sick("a/model", "read", rank=1), "merge", "ties.yml", "out")
        self.assertRegex(said, r"rank 1 \(process \d+ on \S+\) is in 'read a/model")
        self.assertEqual(said.count("ended by its watchdog"), 1, said)
        self.assert_continues(ranks=2)

    def verification_is_ended_too(self):
        said = self.hangs(2, self.sick("reference/model", "read", rank=1), "verify", "reference", "--log-format", "json")
        error = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
        self.assertEqual((error["exit_code"], error["problems"][0]["code"]), (STALLED, "stalled"))
        self.assertRegex(error["problems"][0]["message"], r"rank 1 .* is in 'read reference/")


class stopped(WatchdogTest):
    def rank_is_named_by_those_that_wait_for_it(self):
        process = self.start(3, self.sick("b/model", "read", ms=100), "merge", "ties.yml", "out")
        pid = self.pids(process, 3)[1]
        time.sleep(1)  # its first heartbeat
        os.kill(pid, signal.SIGSTOP)
        said = self.ends(process, STALLED)
        self.assertIn("no rank has made progress", said)
        self.assertRegex(said, r"rank 1 \(process %d on \S+\) has not been heard of" % pid)
        self.assert_continues()

    def job_that_goes_on_is_left_alone(self):
        process = self.start(2, self.sick("b/model", "read", ms=100), "merge", "ties.yml", "out")
        pids = self.pids(process, 2).values()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2 * STALL_SECONDS)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        self.ends(process, 0)
        self.assert_same_bytes()


class slow(WatchdogTest):
    def rank_is_waited_for(self):
        start = time.monotonic()
        self.ends(self.start(3, self.sick("", "read", ms=700, rank=1), "merge", "ties.yml", "out"), 0)
        self.assertGreater(time.monotonic() - start, 2 * STALL_SECONDS, "it was not slow enough to show anything")
        self.assert_same_bytes()


class registration(CliTest):
    def every_test_is_registered(self):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "CMakeLists.txt"), encoding="utf-8") as file:
            text = file.read().split("set(watchdog_tests")[1].split(")")[0]
        self.assertEqual({word for word in text.split() if "." in word}, set(all_tests()))


CLASSES = (hanging, stopped, slow, registration)
HELPERS = {name for name in dir(WatchdogTest)}


def all_tests():
    return ["%s.%s" % (group.__name__, name) for group in CLASSES for name in vars(group)
            if not name.startswith("_") and name not in HELPERS and callable(vars(group)[name])]


def main():
    chosen = sys.argv[1:] or all_tests()
    groups = {group.__name__: group for group in CLASSES}
    suite = unittest.TestSuite(groups[name.split(".")[0]](name.split(".")[1]) for name in chosen)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(0 if result.wasSuccessful() and result.testsRun == len(chosen) else 1)


if __name__ == "__main__":
    main()
