#!/usr/bin/env python3
"""The batch scripts of jobs/ on a real slurmctld and slurmd: a cluster of virtual nodes on this machine (local_slurm.sh).

    cluster_test.py up|down             starts and stops the cluster that the tests of one build directory share
    cluster_test.py class.method        one test; ends with 77, and says why, where there can be no cluster

MOEWELD and BENCH_CHECKPOINT name the binaries, SICK_DISK tests/support/sick_disk, CLUSTER_STATE a file that holds where the cluster is. Standard library only.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "tools"))
import tiny_models  # noqa: E402

MOEWELD = os.path.abspath(os.environ.get("MOEWELD", "moeweld"))
BENCH_CHECKPOINT = os.environ.get("BENCH_CHECKPOINT", "bench_checkpoint")
SICK_DISK = os.environ.get("SICK_DISK", "")
STATE = os.environ.get("CLUSTER_STATE", "")
SKIPPED = 77
NODES = 3
# Nodes claim more cores than there are, so that the scripts run with the resources they ask for.
CORES_PER_NODE = 32
# Whatever becomes of the test run, the cluster goes away.
LONGEST_LIFE_SECONDS = 1200
JOB_SECONDS = 60

TIES = """models:
  - model: a
    parameters: {density: 0.5, weight: 0.5}
  - model: b
    parameters: {density: %s, weight: 0.5}
base_model: base
merge_method: ties
dtype: bfloat16
"""
MIXTURE = """base_model: base
gate_mode: hidden
dtype: bfloat16
experts:
  - {source_model: a, positive_token_ids: [[1, 2, 3]]}
  - {source_model: b, positive_token_ids: [[4, 5]]}
"""


def local_slurm(directory, *arguments):
    environment = {**os.environ, "LOCAL_SLURM_DIR": directory, "LOCAL_SLURM_CPUS": str(CORES_PER_NODE)}
    return subprocess.run([os.path.join(HERE, "local_slurm.sh"), *arguments], env=environment, capture_output=True, text=True, timeout=120)


def up():
    reason = local_slurm("/nowhere", "missing").stdout.strip()
    if reason:
        print("SKIPPED: no virtual cluster: " + reason)
        return SKIPPED
    directory = tempfile.mkdtemp(prefix="moeweld-slurm-")
    result = local_slurm(directory, "up", str(NODES))
    if result.returncode != 0:
        print(result.stdout + result.stderr)
        return 1
    keeper = subprocess.Popen(["bash", "-c", "sleep %d; exec %s down" % (LONGEST_LIFE_SECONDS, shlex.quote(os.path.join(HERE, "local_slurm.sh")))],
                              env={**os.environ, "LOCAL_SLURM_DIR": directory}, start_new_session=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    variables = dict(line.split("=", 1) for line in shlex.split(result.stdout.replace("export ", " ")) if "=" in line)
    with open(STATE, "w", encoding="utf-8") as file:
        json.dump({"directory": directory, "environment": variables, "keeper": keeper.pid}, file)
    return 0


def down():
    if not os.path.exists(STATE):
        return 0
    with open(STATE, encoding="utf-8") as file:
        state = json.load(file)
    os.remove(STATE)
    try:
        os.killpg(state["keeper"], signal.SIGKILL)
    except ProcessLookupError:
        pass
    result = local_slurm(state["directory"], "down")
    shutil.rmtree(state["directory"], ignore_errors=True)
    print(result.stdout + result.stderr)
    return result.returncode


def tree(directory):
    """{relative path: bytes} of everything below a directory."""
    result = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                result[os.path.relpath(path, directory)] = file.read()
    return result


def write_sick_moeweld(script, condition, path, settings):
    """A program that is moeweld, and where the shell's condition holds on a disk that is sick with files of that path: tests/support/sick_disk.c."""
    variables = {"LD_PRELOAD": SICK_DISK, "SICK_DISK_CALLS": "read", "SICK_DISK_PATH": path, **{"SICK_DISK_" + key: value for key, value in settings.items()}}
    with open(script, "w", encoding="utf-8") as file:
        file.write("#!/bin/bash\nif %s; then\n  export %s\nfi\nexec %s \"$@\"\n" % (
            condition, " ".join("%s=%s" % (name, shlex.quote(value)) for name, value in variables.items()), shlex.quote(MOEWELD)))
    os.chmod(script, 0o755)


class ClusterTest(unittest.TestCase):
    def setUp(self):
        with open(STATE, encoding="utf-8") as file:
            state = json.load(file)
        self.cluster = state["directory"]
        self.directory = tempfile.mkdtemp(prefix="moeweld_cluster_")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        slurm = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "OMPI_"))}
        self.environment = {**slurm, **state["environment"], "MOEWELD": MOEWELD, "MOEWELD_HOME": ROOT}

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def call(self, *command, check=True, **variables):
        result = subprocess.run(command, cwd=self.directory, env={**self.environment, **variables}, capture_output=True, text=True, timeout=JOB_SECONDS)
        if check:
            self.assertEqual(result.returncode, 0, "%s\n%s%s" % (command, result.stdout, result.stderr))
        return result.stdout

    def models(self, *names, **options):
        for seed, name in enumerate(names):
            tiny_models.write_model(self.path(name), seed=seed, **options)

    def stand_in(self):
        """What replaces moeweld in this test."""
        self.environment.update(MOEWELD=os.path.join(HERE, "stand_in.sh"), STAND_IN_LOG=self.path("log"))
        self.write("log", "")

    def submit(self, script, *arguments, options=(), **variables):
        return self.call("sbatch", "--parsable", "--output=job-%j.out", *options, os.path.join(ROOT, "jobs", script), *arguments, **variables).strip()

    def fields(self, job):
        """What SLURM says of a job, also of one that has ended."""
        text = self.call("scontrol", "--oneliner", "show", "job", job, check=False)
        return dict(re.findall(r"(\w+)=(\S*)", text.splitlines()[0] if text else ""))

    def wait_for(self, condition, what, seconds=JOB_SECONDS):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join("%s:\n%s" % (name, self.read(name)) for name in sorted(os.listdir(self.directory)) if name.endswith((".out", "log")))
                self.fail("%s took more than %d s\n%s\n%s" % (what, seconds, self.call("squeue", "-l"), logs))
            time.sleep(0.2)

    def assert_job_ends(self, job, state="COMPLETED", seconds=JOB_SECONDS):
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
        self.wait_for(lambda: self.fields(job).get("JobState") in ended, "job " + job, seconds)
        output = self.path("job-%s.out" % job)
        said = self.read(output) if os.path.exists(output) else ""
        self.assertEqual(self.fields(job)["JobState"], state, said)
        return said

    def assert_same_weights(self, out, reference):
        weights = {name: data for name, data in tree(self.path(reference)).items() if name.endswith(".safetensors")}
        self.assertTrue(weights)
        self.assertEqual({name: data for name, data in tree(self.path(out)).items() if name.endswith(".safetensors")}, weights)
        self.call(MOEWELD, "verify", out)


class scripts(ClusterTest):
    """As they are, on the resources they ask for."""

    def merge_with(self, launcher):
        self.models("base", "a", "b", hidden=128, intermediate=256, vocab=4000)
        self.write("ties.yml", TIES % 0.5)
        self.call(MOEWELD, "merge", "ties.yml", "reference", "-q")
        said = self.assert_job_ends(self.submit("merge.sbatch", "ties.yml", "out", "-v", MOEWELD_LAUNCHER=launcher))
        self.assertEqual(said.count("verify with: moeweld verify out"), 1, said)
        self.assertIn("per rank (8)", said)
        self.assertIn("node of rank 0: 4 ranks on ", said)
        self.assert_same_weights("out", "reference")

    def merge_by_srun(self):
        self.merge_with("srun")

    def merge_by_mpirun(self):
        self.merge_with("mpirun")

    def header_of_a_plan_runs_the_merge(self):
        self.models("base", "a", "b")
        self.write("ties.yml", TIES % 0.5)
        self.call(MOEWELD, "merge", "ties.yml", "reference", "-q")
        header = self.call(MOEWELD, "plan", "ties.yml", "--sbatch", "--nodes", "2")
        self.write("mine.sbatch", header + self.call("sed", "/^#/d", os.path.join(ROOT, "jobs", "merge.sbatch")))
        job = self.call("sbatch", "--parsable", "--output=job-%j.out", "mine.sbatch", "ties.yml", "out").strip()
        self.assert_job_ends(job)
        self.assertEqual(self.fields(job)["NumNodes"], "2")
        self.assertEqual(self.fields(job)["MinMemoryNode"], re.search(r"--mem=(\d+G)", header).group(1))
        self.assert_same_weights("out", "reference")

    def mixture_is_assembled_and_run_on_a_text(self):
        self.models("base", "a", "b", vocab=300)
        shutil.copy(os.path.join(ROOT, "tests", "fuzz", "corpus", "tokenizer_json", "byte_level.json"), self.path("base", "tokenizer.json"))
        for name in ("tokenizer_config.json", "special_tokens_map.json"):  # of another vocabulary
            os.remove(self.path("base", name))
        self.write("moe.yml", MIXTURE)
        self.write("text.txt", "ab ab\n")
        self.call(MOEWELD, "merge", "moe.yml", "reference", "-q")
        said = self.assert_job_ends(self.submit("moe.sbatch", "moe.yml", "out", "text.txt"))
        self.assertRegex(said, r"(?m)^logits +all finite$")
        self.assertRegex(said, r"(?m)^perplexity ")
        self.assert_same_weights("out", "reference")

    def sweep_merges_each_value(self):
        self.models("base", "a", "b")
        self.write("sweep.yml", TIES % "@VALUE@")
        job = self.submit("sweep.sbatch", "sweep.yml", "out", "0.25", "0.75", options=("--array=0-1",))
        self.wait_for(lambda: os.path.isdir(self.path("out", "0.25")) and os.path.isdir(self.path("out", "0.75")), "array " + job)
        for value in ("0.25", "0.75"):
            self.write("one.yml", TIES % value)
            self.call(MOEWELD, "merge", "one.yml", "reference", "-q", "--force")
            self.assert_same_weights(os.path.join("out", value), "reference")

    def scaling_gives_a_table(self):
        self.models("base", "a", "b")
        self.write("ties.yml", TIES % 0.5)
        said = self.assert_job_ends(self.submit("scaling.sbatch", "ties.yml", "out", options=("--nodes=3", "--ntasks-per-node=1"), REPEATS="2"))
        table = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line.startswith("| ")][1:]
        self.assertEqual([row[:3] for row in table], [["1", "1", "2"], ["2", "2", "2"], ["3", "3", "2"]], said)
        self.assertEqual(table[0][6:], ["1.00", "1.00"])
        with open(self.path("out.scaling.jsonl"), encoding="utf-8") as file:
            runs = [json.loads(line) for line in file]
        self.assertEqual([(run["nodes"], len(run["ranks"])) for run in runs], [(1, 1), (1, 1), (2, 2), (2, 2), (3, 3), (3, 3)])
        self.assertFalse(os.path.exists(self.path("out")))

    def mistake_in_the_configuration_is_no_reason_to_come_back(self):
        self.write("wrong.yml", "merge_method: linear\n")
        for script in ("merge.sbatch", "resume-chain.sbatch"):
            job = self.submit(script, "wrong.yml", "out")
            said = self.assert_job_ends(job, "FAILED")
            self.assertIn("wrong.yml", said)
            self.assertEqual(self.fields(job)["ExitCode"], "3:0")
            self.assertEqual(self.fields(job)["Restarts"], "0")
        self.wait_for(lambda: not self.call("squeue", "-h", "--name=moeweld-chain"), "the end of the chain")


class signals(ClusterTest):
    """What the scripts do with signals and exit codes, shown by a program that only waits for them."""
    SMALL = ("--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=1")

    def begin(self, script, launcher="srun"):
        self.stand_in()
        job = self.submit(script, "config.yml", "out", options=self.SMALL, MOEWELD_LAUNCHER=launcher)
        self.wait_for(lambda: self.read("log").count(" waits") == 4, "the beginning of the ranks")
        return job

    def ranks_that(self, words):
        return sorted(int(rank) for rank in re.findall(r"rank (\d+) n\d+ %s$" % words, self.read("log"), re.M))

    def comes_back(self, launcher):
        job = self.begin("merge.sbatch", launcher)
        self.call("scancel", "--batch", "--signal=USR1", job)
        said = self.assert_job_ends(job)
        self.assertEqual(self.ranks_that("USR1"), [0, 1, 2, 3], said)
        self.assertEqual(self.fields(job)["Restarts"], "1")
        self.assertEqual(self.ranks_that("done"), [0, 1, 2, 3], said)
        self.assertTrue(os.path.isdir(self.path("out")))

    def reach_all_ranks_by_srun_and_the_job_comes_back(self):
        self.comes_back("srun")

    def reach_all_ranks_by_mpirun_and_the_job_comes_back(self):
        self.comes_back("mpirun")

    def crash_at_the_start_is_tried_again(self):
        """As in MPI_Init, where nothing has begun yet; three times, not for ever."""
        for crashes, state in ((2, "COMPLETED"), (3, "FAILED")):
            self.stand_in()
            self.write("log", "")
            job = self.submit("merge.sbatch", "config.yml", "out", options=self.SMALL, STAND_IN_CRASHES=str(crashes), STAND_IN_STATUS="0")
            said = self.assert_job_ends(job, state)
            self.assertEqual(self.read("log").count(" crashes"), crashes, said)
            self.assertEqual(self.ranks_that("begins"), [0, 1, 2, 3] if crashes == 2 else [], said)
            self.assertEqual(said.count("trying again"), 2, said)

    def time_limit_sends_them(self):
        """SLURM sends the signal up to 60 s early, so a minute's limit and a second's notice may mean at once."""
        self.stand_in()
        job = self.submit("merge.sbatch", "config.yml", "out", options=(*self.SMALL, "--time=1", "--signal=B:USR1@55"))
        self.assert_job_ends(job, seconds=90)
        self.assertEqual(self.ranks_that("USR1"), [0, 1, 2, 3])
        self.assertEqual(self.fields(job)["Restarts"], "1")

    def cancelled_job_does_not_come_back(self):
        job = self.begin("merge.sbatch")
        self.call("scancel", job)
        self.assert_job_ends(job, "CANCELLED")
        time.sleep(2)
        self.assertEqual(self.fields(job)["JobState"], "CANCELLED")
        self.assertFalse(os.path.exists(self.path("out")))

    def chain_continues_and_ends(self):
        job = self.begin("resume-chain.sbatch")
        self.call("scancel", "--batch", "--signal=USR1", job)
        self.assert_job_ends(job, "FAILED")
        successor = re.search(r"job (\d+) continues", self.read("job-%s.out" % job)).group(1)
        self.wait_for(lambda: self.fields(successor).get("JobState") == "COMPLETED", "job " + successor)
        self.assertEqual(self.ranks_that("done"), [0, 1, 2, 3])
        self.assertTrue(os.path.isdir(self.path("out")))
        self.wait_for(lambda: not self.call("squeue", "-h", "--name=moeweld-chain"), "the end of the chain")


class restart(ClusterTest):
    """moeweld itself, interrupted while it writes."""

    def sick_disk(self, condition, **settings):
        """In the place of moeweld: where the shell's condition holds, reads of model b take their time, or hang."""
        write_sick_moeweld(self.path("sick.sh"), condition, self.path("b", "model"), settings)
        self.environment.update(MOEWELD=self.path("sick.sh"))

    def is_the_same_merge(self, launcher):
        for variant, name in enumerate(("base", "a", "b")):
            self.call(BENCH_CHECKPOINT, name, "--size-gb", "0.15", "--variant", str(variant))
        self.write("ties.yml", TIES % 0.5)
        self.call(MOEWELD, "merge", "ties.yml", "reference", "-q")
        # In the first run, so that the signal comes long before the merge could end.
        self.sick_disk('[ "${SLURM_RESTART_COUNT:-0}" = 0 ]', WHILE=self.directory, MS="80")
        job = self.submit("merge.sbatch", "ties.yml", "out", "--journal-interval", "0.1", "--memory-limit", "256MiB", options=signals.SMALL,
                          MOEWELD_LAUNCHER=launcher)
        # All of the output is reserved at once; blocks that are in the journal are what a restart need not do again.
        journal = self.path("out.partial", "journal")
        self.wait_for(lambda: os.path.isdir(journal) and sum(os.path.getsize(os.path.join(journal, name)) for name in os.listdir(journal)) > 2000,
                      "the first entries of the journal")
        self.call("scancel", "--batch", "--signal=USR1", job)
        said = self.assert_job_ends(job, seconds=90)
        self.assertIn("interrupted by SIGUSR1", said)
        self.assertRegex(said, r"continued: [0-9.]+ [kMG]?B were written before")
        self.assertEqual(self.fields(job)["Restarts"], "1", said)
        self.assertEqual(said.count("verify with: moeweld verify out"), 1, said)
        self.assert_same_weights("out", "reference")
        self.assertFalse(os.path.exists(self.path("out.partial")))

    def after_a_signal_by_srun(self):
        self.is_the_same_merge("srun")

    def after_a_signal_by_mpirun(self):
        self.is_the_same_merge("mpirun")


class nodes(ClusterTest):
    def dead_node_does_not_end_a_job(self):
        """SLURM queues the job again when a node is silent, and the script continues on the nodes that are left."""
        self.stand_in()
        job = self.submit("merge.sbatch", "config.yml", "out", options=signals.SMALL)
        self.wait_for(lambda: self.read("log").count(" waits") == 4, "the beginning of the ranks")
        dead = sorted(set(re.findall(r" (n\d+) waits$", self.read("log"), re.M)))[-1]
        result = local_slurm(self.cluster, "crash", dead)
        self.addCleanup(local_slurm, self.cluster, "boot", dead)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assert_job_ends(job, seconds=90)
        self.assertEqual(self.fields(job)["Restarts"], "1")
        done = re.findall(r"run 1 .* (n\d+) done$", self.read("log"), re.M)
        self.assertEqual(len(done), 4, self.read("log"))
        self.assertNotIn(dead, done)


class network(unittest.TestCase):
    """Ranks on two virtual nodes of their own, and what is between them gets worse."""
    RANKS = 4
    BOUND_SECONDS = 60

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="moeweld-net-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        # mpirun and its daemons find out that a link is dead within six seconds.
        keepalive = {"OMPI_MCA_oob_tcp_keepalive_" + name: value for name, value in (("time", "3"), ("intvl", "1"), ("probes", "3"))}
        self.environment = {**os.environ, **keepalive, "VIRTUAL_NODES_DIR": os.path.join(self.directory, "nodes"), "VIRTUAL_NODES_NET": "10.214.0",
                            "VIRTUAL_NODES_TIMEOUT": str(self.BOUND_SECONDS)}
        self.nodes("up", "2")
        self.addCleanup(self.nodes, "down")

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def nodes(self, *arguments):
        result = subprocess.run([os.path.join(HERE, "virtual_nodes.sh"), *arguments], cwd=self.directory, env=self.environment, capture_output=True, text=True,
                                timeout=self.BOUND_SECONDS + 30)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def prepare(self, **options):
        for seed, name in enumerate(("base", "a", "b")):
            tiny_models.write_model(self.path(name), seed=seed, **options)
        with open(self.path("ties.yml"), "w", encoding="utf-8") as file:
            file.write(TIES % 0.5)
        subprocess.run([MOEWELD, "merge", "ties.yml", "reference", "-q"], cwd=self.directory, check=True, timeout=60)

    def assert_same_weights(self, out):
        for name, data in tree(self.path("reference")).items():
            if name.endswith(".safetensors"):
                self.assertEqual(tree(self.path(out))[name], data)

    def delay_and_loss_change_no_byte(self):
        self.prepare(hidden=128, intermediate=256, vocab=4000)
        self.nodes("lag", "n2", "5", "1")
        self.nodes("run", str(self.RANKS), MOEWELD, "merge", "ties.yml", "out", "-q")
        self.assert_same_weights("out")

    def slow_node_is_waited_for(self):
        """Far longer than the watchdog's timeout, on a link that is slow as well."""
        self.prepare(layers=2, hidden=512, intermediate=2048, vocab=4000, heads=8, kv_heads=4)
        write_sick_moeweld(self.path("sick.sh"), '[ "$(uname -n)" = n2 ]', self.path("b", "model"), {"WHILE": self.directory, "MS": "600"})
        self.nodes("lag", "n2", "5")
        start = time.monotonic()
        self.nodes("run", str(self.RANKS), self.path("sick.sh"), "merge", "ties.yml", "out", "-q", "--memory-limit", "128MiB", "--threads", "1", "--stall-timeout", "2.5")
        self.assertGreater(time.monotonic() - start, 5, "it was not slow enough to show anything")
        self.assert_same_weights("out")

    def cut_ends_the_job_and_leaves_nothing_that_looks_complete(self):
        self.prepare(layers=2, hidden=512, intermediate=2048, vocab=4000, heads=8, kv_heads=4)
        self.nodes("lag", "n2", "30")  # every exchange of the ranks takes long enough to be cut
        process = subprocess.Popen([os.path.join(HERE, "virtual_nodes.sh"), "run", str(self.RANKS), MOEWELD, "merge", "ties.yml", "out", "-q", "--threads", "1",
                                    "--memory-limit", "256MiB"], cwd=self.directory, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        end = time.monotonic() + 30
        while not os.path.exists(self.path("out.partial")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        self.nodes("link", "n2", "down")
        cut = time.monotonic()
        said, _ = process.communicate(timeout=self.BOUND_SECONDS + 30)
        self.assertNotEqual(process.returncode, 0, said)
        self.assertNotEqual(process.returncode, 124, "hung until the time limit\n" + said)
        self.assertLess(time.monotonic() - cut, self.BOUND_SECONDS)
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertFalse(os.path.exists(self.path("out.partial", "model.safetensors.index.json")))
        self.nodes("link", "n2", "up")
        self.nodes("run", str(self.RANKS), MOEWELD, "merge", "ties.yml", "out", "-q", "--force")
        self.assert_same_weights("out")


class registration(unittest.TestCase):
    def every_test_is_registered(self):
        with open(os.path.join(HERE, "CMakeLists.txt"), encoding="utf-8") as file:
            listed = re.findall(r"\b(?:registration|network|nodes|restart|scripts|signals)\.\w+", file.read().split("set(cluster_tests")[1].split(")")[0])
        self.assertEqual(sorted(listed), sorted(all_tests()))


CLASSES = (registration, network, nodes, restart, scripts, signals)
HELPERS = {"is_the_same_merge", "sick_disk", "assert_same_weights", "nodes", "path", "prepare", "setUp", "merge_with", "begin", "ranks_that", "comes_back"}


def all_tests():
    return ["%s.%s" % (group.__name__, name) for group in CLASSES for name in vars(group)
            if not name.startswith("_") and name not in HELPERS and callable(vars(group)[name])]


def main():
    if sys.argv[1:] in (["up"], ["down"]):
        return {"up": up, "down": down}[sys.argv[1]]()
    if not os.path.exists(STATE):
        print("SKIPPED: there is no virtual cluster")
        return SKIPPED
    chosen = sys.argv[1:] or all_tests()
    groups = {group.__name__: group for group in CLASSES}
    suite = unittest.TestSuite(groups[name.split(".")[0]](name.split(".")[1]) for name in chosen)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    return 0 if result.wasSuccessful() and result.testsRun == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
