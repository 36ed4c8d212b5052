#!/usr/bin/env python3
"""Runs one merge with mergekit and prints how long it took without the imports: run_mergekit.py CONFIG OUT"""

import sys
import time

import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

start = time.monotonic()
with open(sys.argv[1], encoding="utf-8") as file:
    config = MergeConfiguration.model_validate(yaml.safe_load(file))
run_merge(config, sys.argv[2], options=MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False))
print("seconds_without_imports %.3f" % (time.monotonic() - start))
