#!/usr/bin/env python3
"""What share of a merge's time its journal takes, by the trace.

journal_cost.py MOEWELD CONFIG [--ranks 2] [--interval 5] [--directory DIR]

A rank's two writing threads sync files and append records. Their time in `journal` spans is divided by the merge stage's; the last sync, after all is
written, is every merge's and does not count. So the figure is the share of a writing thread; the pipeline goes on meanwhile.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile


def ranks_of(trace):
    """By rank: (seconds of the merge stage, {writer: seconds in the journal while it lasted}, number of journal spans)."""
    names, spans = {}, {}
    for event in trace["traceEvents"]:
        if event.get("name") == "thread_name":
            names[event["pid"], event["tid"]] = event["args"]["name"]
        elif event.get("ph") == "X":
            spans.setdefault(event["pid"], []).append(event)
    for rank, events in sorted(spans.items()):
        merge = next(event for event in events if event["cat"] == "stage" and event["name"] == "merge")
        waits = [event["ts"] for event in events if event["name"] == "wait for writers"]
        end = min(waits) if waits else merge["ts"] + merge["dur"]
        writers = {}
        count = 0
        for event in events:
            name = names.get((rank, event["tid"]), "")
            if not name.startswith("writer"):
                continue
            writers.setdefault(name, 0.0)
            if event["cat"] == "journal" and event["ts"] < end:
                writers[name] += event["dur"] / 1e6
                count += 1
        yield rank, merge["dur"] / 1e6, writers, count


def main():
    os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_mpi_yield_when_idle="1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moeweld")
    parser.add_argument("config")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--interval", type=float, default=5)
    parser.add_argument("--directory", help="of the output; the output is removed")
    arguments = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="moeweld_journal_", dir=arguments.directory)
    try:
        path = os.path.join(directory, "trace.json")
        subprocess.run(["mpiexec", "--oversubscribe", "--bind-to", "none", "-n", str(arguments.ranks), os.path.abspath(arguments.moeweld), "merge",
                        os.path.abspath(arguments.config), os.path.join(directory, "out"), "--threads", "1", "--trace", path, "-q", "--journal-interval",
                        str(arguments.interval)], check=True)
        with open(path, encoding="utf-8") as file:
            trace = json.load(file)
        if trace["otherData"].get("dropped_spans", 0):
            sys.exit("the trace had no room for all spans")
        for rank, seconds, writers, count in ranks_of(trace):
            share = sum(writers.values()) / (seconds * max(1, len(writers)))
            print("rank %d: merge %.2f s, %d journal spans before the last, %.3f s in %d writers: %.2f %% of their time" %
                  (rank, seconds, count, sum(writers.values()), len(writers), 100 * share))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
