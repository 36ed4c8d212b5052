#!/usr/bin/env python3
"""The table of jobs/scaling.sbatch from its JSON lines: medians of each node count, and how much of the ideal speed-up is there.

    bench/scaling_table.py FILE
"""

import json
import statistics
import sys


def rows(lines):
    by_nodes = {}
    for line in lines:
        run = json.loads(line)
        by_nodes.setdefault((run["nodes"], len(run["ranks"])), []).append(run)
    first = None
    for (nodes, ranks), runs in sorted(by_nodes.items()):
        seconds = statistics.median(run["seconds"] for run in runs)
        first = first or (nodes, seconds)
        yield {"nodes": nodes, "ranks": ranks, "runs": len(runs), "seconds": seconds,
               "read_gb_s": runs[0]["read_bytes"] / seconds / 1e9, "write_gb_s": runs[0]["written_bytes"] / seconds / 1e9,
               "speed_up": first[1] / seconds, "efficiency": first[1] / seconds * first[0] / nodes}


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        table = list(rows(file))
    print("| nodes | ranks | runs | seconds | read GB/s | write GB/s | speed-up | of ideal |\n|---|---|---|---|---|---|---|---|")
    for row in table:
        print("| %(nodes)d | %(ranks)d | %(runs)d | %(seconds).2f | %(read_gb_s).2f | %(write_gb_s).2f | %(speed_up).2f | %(efficiency).2f |" % row)


if __name__ == "__main__":
    main()
