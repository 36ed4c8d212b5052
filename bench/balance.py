#!/usr/bin/env python3
"""What taking work from a slow rank is worth: the same merge with --balance dynamic and static, with one rank slowed and with none, in turn.

balance.py MOEWELD CONFIG [--ranks 2] [--slowdown 10] [--rounds 3] [--directory DIR] [MOEWELD-OPTION]...

The last rank is stopped and let go on by signals, so that it runs 1/SLOWDOWN of the time. One thread per rank. Prints a line per run, then medians.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PERIOD_SECONDS = 0.05
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")


def processes_of(launcher):
    """Process ids of the launcher's descendants."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                    children.setdefault(int(file.read().rsplit(")", 1)[1].split()[1]), []).append(int(name))
            except OSError:
                continue
    found, open_ones = [], [launcher]
    while open_ones:
        below = children.get(open_ones.pop(), [])
        found += below
        open_ones += below
    return found


def process_of_rank(launcher, rank):
    wanted = {f"{variable}={rank}".encode() for variable in RANK_VARIABLES}
    for process in processes_of(launcher):
        try:
            with open(f"/proc/{process}/environ", "rb") as file:
                if wanted & set(file.read().split(b"\0")):
                    return process
        except OSError:
            continue
    return None


def slow_down(launcher, rank, slowdown):
    process = None
    while launcher.poll() is None and process is None:
        process = process_of_rank(launcher.pid, rank)
        time.sleep(0.005)
    try:
        while launcher.poll() is None:
            os.kill(process, signal.SIGSTOP)
            time.sleep(PERIOD_SECONDS * (1 - 1 / slowdown))
            os.kill(process, signal.SIGCONT)
            time.sleep(PERIOD_SECONDS / slowdown)
    except (ProcessLookupError, TypeError):
        pass


def run(options, more, balance, slowdown, directory):
    out = os.path.join(directory, "out")
    shutil.rmtree(out, ignore_errors=True)
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(options.ranks), os.path.abspath(options.moeweld), "merge",
               os.path.abspath(options.config), out, "--threads", "1", "--log-format", "json", "--balance", balance, *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as launcher:
        slowing = None
        if slowdown > 1:
            slowing = threading.Thread(target=slow_down, args=(launcher, options.ranks - 1, slowdown))
            slowing.start()
        output = launcher.stdout.read()
        status = launcher.wait()
        if slowing:
            slowing.join()
    if status != 0:
        sys.exit("%s ended with %d" % (" ".join(command), status))
    summary = next(json.loads(line) for line in output.splitlines() if line.startswith("{") and json.loads(line).get("event") == "summary")
    seconds = max(rank["measure_seconds"] + rank["merge_seconds"] for rank in summary["ranks"])
    taken = sum(rank["taken_bytes"] for rank in summary["ranks"])
    print("%-7s slowed %4.1f times: merge %6.2f s, in all %6.2f s, %5.1f %% of the bytes moved, longest answer %.1f ms" %
          (balance, slowdown, seconds, summary["seconds"], 100 * taken / max(1, summary["written_bytes"]),
           1000 * max(rank["longest_answer_seconds"] for rank in summary["ranks"])), flush=True)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moeweld")
    parser.add_argument("config")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--slowdown", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", help="of the output; the output is removed")
    options, more = parser.parse_known_args()
    directory = tempfile.mkdtemp(prefix="moeweld_balance_", dir=options.directory)
    seconds = {}
    try:
        for _ in range(options.rounds):
            for slowdown in (options.slowdown, 1):
                for balance in ("static", "dynamic"):
                    seconds.setdefault((slowdown, balance), []).append(run(options, more, balance, slowdown, directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for slowdown in (options.slowdown, 1):
        static, dynamic = seconds[slowdown, "static"], seconds[slowdown, "dynamic"]
        ratios = [before / after for before, after in zip(static, dynamic)]
        print("slowed %g times: static %.2f s, dynamic %.2f s (medians); static / dynamic %.2f (%s)" %
              (slowdown, statistics.median(static), statistics.median(dynamic), statistics.median(ratios), ", ".join("%.2f" % r for r in ratios)))


if __name__ == "__main__":
    main()
