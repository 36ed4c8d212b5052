#!/usr/bin/env python3
"""A model of how long a merge takes on 1 to 64 nodes, and where more nodes stop helping. It computes; it measures nothing.

    bench/scaling_model.py [--inputs bench/scaling_inputs.json] [--file-system-gb-s N] [--json]

The inputs are what one rank with one thread was measured to do (bench/rank_speedup.py --rates), and what is stated of a site: cores, memory bandwidth,
network and file system. docs/scaling.md says what each means, shows the tables, and says what the model leaves out.
"""

import argparse
import json
import math
import os

NODES = (1, 2, 4, 8, 16, 32, 64)
# Twice the nodes are worth it while they are at least this much faster.
WORTH_IT = 1.5


def fixed_seconds(merge, site, nodes):
    """What does not shrink with more nodes: launching ranks, planning, handing the plan round, opening files, publishing."""
    ranks = nodes * site["ranks_per_node"]
    launch = site["launch_seconds"] + ranks * site["launch_seconds_per_rank"]
    rounds = math.ceil(math.log2(ranks)) if ranks > 1 else 0
    broadcast = rounds * merge["plan_bytes"] / site["network_bytes_per_second_per_node"]
    # Every rank's share begins and ends within a file, so each border is one more open of every model's file, and of the output's.
    opens = merge["input_files"] + merge["output_files"] + (merge["models"] + 1) * (ranks - 1)
    return launch + merge["plan_seconds"] + broadcast + opens / site["opens_per_second"] + site["publish_seconds"]


def stages(merge, site, nodes):
    """Seconds of what goes on at the same time, each as if it were alone: (seconds, what)."""
    shares = merge["shares"][str(nodes)]
    rank_rate = site["threads_per_rank"] * site["thread_efficiency"] * merge["read_bytes_per_second_per_core"]
    read, written = shares["most_read_by_node"], shares["most_written_by_node"]
    network = site["network_bytes_per_second_per_node"]
    # A byte read passes memory when it arrives and when it is combined; one written when it is made and when it leaves.
    return [(shares["most_read_by_rank"] / rank_rate, "computing"),
            (2 * (read + written) / site["memory_bytes_per_second_per_node"], "memory"),
            (read / network, "a node's network, reading"), (written / network, "a node's network, writing"),
            ((shares["read_bytes"] + shares["written_bytes"]) / site["file_system_bytes_per_second"], "the file system")]


def predict(merge, site, nodes):
    work, bound_by = max(stages(merge, site, nodes))
    fixed = fixed_seconds(merge, site, nodes)
    shares = merge["shares"][str(nodes)]
    return {"nodes": nodes, "ranks": nodes * site["ranks_per_node"], "seconds": fixed + work, "fixed_seconds": fixed,
            "bound_by": bound_by if work >= fixed else "what is fixed", "read_bytes": shares["read_bytes"], "written_bytes": shares["written_bytes"]}


def table(merge, site):
    rows = [predict(merge, site, nodes) for nodes in NODES]
    for row in rows:
        row["speed_up"] = rows[0]["seconds"] / row["seconds"]
        row["bytes_per_second"] = (row["read_bytes"] + row["written_bytes"]) / row["seconds"]
    return rows


def stops_at(rows):
    """The row from which twice the nodes are not worth it; None if they always are."""
    for row, next_row in zip(rows, rows[1:]):
        if row["seconds"] / next_row["seconds"] < WORTH_IT:
            return row
    return None


def text(inputs):
    parts = []
    for merge in inputs["merges"]:
        rows = table(merge, inputs["site"])
        parts.append("**%s** (model): %.0f GB in, %.0f GB out\n" % (merge["name"], rows[0]["read_bytes"] / 1e9, rows[0]["written_bytes"] / 1e9))
        parts.append("| nodes | ranks | GB read | seconds | of them fixed | GB/s | times one node | bound by |\n|---|---|---|---|---|---|---|---|")
        parts.extend("| %d | %d | %.0f | %.1f | %.1f | %.0f | %.1f | %s |" % (
            row["nodes"], row["ranks"], row["read_bytes"] / 1e9, row["seconds"], row["fixed_seconds"], row["bytes_per_second"] / 1e9, row["speed_up"],
            row["bound_by"]) for row in rows)
        parts.append("\n" + conclusion(rows) + "\n")
    return "\n".join(parts)


def conclusion(rows):
    stop = stops_at(rows)
    if stop is None:
        return "Scales to %d nodes." % rows[-1]["nodes"]
    after = next(row for row in rows if row["nodes"] > stop["nodes"])
    return "Stops scaling at %d nodes: %d take %.1f s instead of %.1f, bound by %s." % (stop["nodes"], after["nodes"], after["seconds"], stop["seconds"],
                                                                                      after["bound_by"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "scaling_inputs.json"))
    parser.add_argument("--file-system-gb-s", type=float, help="another ceiling of the file system than the stated one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with open(options.inputs, encoding="utf-8") as file:
        inputs = json.load(file)
    if options.file_system_gb_s:
        inputs["site"]["file_system_bytes_per_second"] = options.file_system_gb_s * 1e9
    if options.json:
        print(json.dumps([{"name": merge["name"], "rows": table(merge, inputs["site"])} for merge in inputs["merges"]], indent=2))
    else:
        print(text(inputs), end="")


if __name__ == "__main__":
    main()
