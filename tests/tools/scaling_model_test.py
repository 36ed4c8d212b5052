#!/usr/bin/env python3
"""bench/scaling_model.py against cases computed by hand, and docs/scaling.md against what it prints.

scaling_model_test.py ROOT
"""

import json
import os
import sys
import unittest

ROOT = os.path.abspath(sys.argv[1])
sys.path.insert(0, os.path.join(ROOT, "bench"))
import scaling_model  # noqa: E402

# Round numbers: a rank combines 2 * 0.5 * 1e9 = 1e9 bytes per second, a node has two ranks.
SITE = {"ranks_per_node": 2, "threads_per_rank": 2, "thread_efficiency": 0.5, "memory_bytes_per_second_per_node": 100e9,
        "network_bytes_per_second_per_node": 10e9, "file_system_bytes_per_second": 15e9, "opens_per_second": 100, "launch_seconds": 2,
        "launch_seconds_per_rank": 0.5, "publish_seconds": 3}


def shares(nodes, read, written, ranks_per_node=2):
    return {"read_bytes": read, "written_bytes": written, "most_read_by_rank": read / nodes / ranks_per_node, "most_read_by_node": read / nodes,
            "most_written_by_node": written / nodes}


def merge(rate=1e9, read=120e9, written=60e9):
    return {"name": "m", "models": 2, "input_files": 6, "output_files": 3, "plan_seconds": 4, "plan_bytes": 5e9, "read_bytes_per_second_per_core": rate,
            "shares": {str(nodes): shares(nodes, read, written) for nodes in scaling_model.NODES}}


class model(unittest.TestCase):
    def test_what_is_fixed(self):
        # Two ranks: launch 2 + 1, plan 4, one round of 5e9 / 10e9, opens (6 + 3 + 3 * 1) / 100, publish 3.
        self.assertAlmostEqual(scaling_model.fixed_seconds(merge(), SITE, 1), 3 + 4 + 0.5 + 0.12 + 3)
        # Eight ranks: launch 2 + 4, three rounds, opens (9 + 21) / 100.
        self.assertAlmostEqual(scaling_model.fixed_seconds(merge(), SITE, 4), 6 + 4 + 1.5 + 0.3 + 3)

    def test_computing_bounds_few_nodes_and_the_file_system_many(self):
        # One node: 60e9 bytes of a rank at 1e9; reading takes 12 s, writing 6 s, memory 3.6 s, the file system 12 s.
        one = scaling_model.predict(merge(), SITE, 1)
        self.assertEqual(one["bound_by"], "computing")
        self.assertAlmostEqual(one["seconds"], 60 + 10.62)
        # Eight nodes: 7.5 s of computing, 180e9 / 15e9 = 12 s of the file system.
        eight = scaling_model.predict(merge(), {**SITE, "launch_seconds_per_rank": 0}, 8)
        self.assertEqual(eight["bound_by"], "the file system")
        self.assertAlmostEqual(eight["seconds"], 12 + 2 + 4 + 4 * 0.5 + (9 + 45) / 100 + 3)

    def test_each_stage_can_bound(self):
        # Fast cores: 2 * 180e9 / 100e9 = 3.6 s of memory, 12 s of the network.
        fast = {**SITE, "file_system_bytes_per_second": 1e15, "publish_seconds": 0, "launch_seconds": 0, "launch_seconds_per_rank": 0}
        quick = {**merge(rate=1e15), "plan_seconds": 0, "plan_bytes": 0}
        self.assertEqual(scaling_model.predict(quick, fast, 1)["bound_by"], "a node's network, reading")
        self.assertEqual(scaling_model.predict(quick, {**fast, "network_bytes_per_second_per_node": 1e15}, 1)["bound_by"], "memory")
        writing = {**quick, "shares": {"1": shares(1, 10e9, 60e9)}}
        self.assertEqual(scaling_model.predict(writing, fast, 1)["bound_by"], "a node's network, writing")
        self.assertAlmostEqual(scaling_model.predict(writing, fast, 1)["seconds"], 6 + 0.12)

    def test_the_largest_share_sets_the_pace(self):
        uneven = merge()
        uneven["shares"]["1"] = {**shares(1, 120e9, 60e9), "most_read_by_rank": 80e9}
        self.assertAlmostEqual(scaling_model.predict(uneven, SITE, 1)["seconds"], 80 + 10.62)

    def test_it_stops_where_twice_the_nodes_are_not_worth_it(self):
        rows = [{"nodes": nodes, "seconds": seconds} for nodes, seconds in ((1, 100), (2, 55), (4, 36), (8, 25))]
        self.assertEqual(scaling_model.stops_at(rows)["nodes"], 4)
        self.assertIsNone(scaling_model.stops_at(rows[:2]))

    def test_docs_show_what_it_prints(self):
        with open(os.path.join(ROOT, "bench/scaling_inputs.json"), encoding="utf-8") as file:
            printed = scaling_model.text(json.load(file))
        with open(os.path.join(ROOT, "docs/scaling.md"), encoding="utf-8") as file:
            self.assertIn(printed, file.read(), "bench/scaling_model.py prints other tables than docs/scaling.md has")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
