#!/usr/bin/env python3
"""Seeded trials: a rank of a merge under mpirun is killed by SIGKILL at a random moment, the merge continued, and its bytes compared.

kill_trials.py MOEWELD [--trials 50] [--kinds dense assembly extraction aligned fp8] [--seed 0] [--small] [--directory DIR]

A trial counts if a rank was killed before the output was complete; more are run until there are enough. Ends with 1 at the first failure, and
names its kind and seed.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "tools"))
import kill_and_resume  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moeweld")
    parser.add_argument("--trials", type=int, default=50, help="of each kind")
    parser.add_argument("--kinds", nargs="+", default=["dense"], choices=sorted(kill_and_resume.KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="outputs of 10 MB, not 35")
    parser.add_argument("--directory", help="of the models and outputs; made and removed")
    arguments = parser.parse_args()
    root = tempfile.mkdtemp(prefix="moeweld_kill_", dir=arguments.directory)
    try:
        for kind in arguments.kinds:
            begin = time.monotonic()
            work = kill_and_resume.Work(os.path.join(root, kind), kind, os.path.abspath(arguments.moeweld),
                                        size=kill_and_resume.SMALL_SIZE if arguments.small else None)
            counted, kills, resumed, before_first, seed = 0, 0, 0, 0, arguments.seed
            while counted < arguments.trials:
                try:
                    report = work.trial(seed)
                except kill_and_resume.Failed as failure:
                    print("%s: FAILED after %d trials: %s" % (kind, counted, failure), flush=True)
                    return 1
                seed += 1
                disturbed = [kill for kill in report["kills"] if kill["state"] != "complete"]
                if not disturbed:
                    continue
                counted += 1
                kills += len(disturbed)
                resumed += report["resumed_bytes"] > 0
                before_first += all(kill["finished_bytes"] == 0 for kill in disturbed)
            print("%s: %d of %d trials byte-identical, %d kills; %d continued from durable work, %d were killed before any; seeds %d to %d, %.0f s" %
                  (kind, counted, arguments.trials, kills, resumed, before_first, arguments.seed, seed - 1, time.monotonic() - begin), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
