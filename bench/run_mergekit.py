#!/usr/bin/env python3
"""Runs one merge or assembly with mergekit and prints how long it took without the imports: run_mergekit.py CONFIG OUT"""

import os
import sys
import time

import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.moe.config import MoEMergeConfig
from mergekit.options import MergeOptions
from mergekit.scripts.moe import build

def give_tokenizer(directory):
    """mergekit-moe loads one even for random gates."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    if not os.path.exists(os.path.join(directory, "tokenizer.json")):
        tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>").save_pretrained(directory)


with open(sys.argv[1], encoding="utf-8") as file:
    config = yaml.safe_load(file)
options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
if "experts" in config:
    give_tokenizer(config["base_model"])
start = time.monotonic()
if "experts" in config:
    build(MoEMergeConfig.model_validate(config), sys.argv[2], options, device="cpu")
else:
    run_merge(MergeConfiguration.model_validate(config), sys.argv[2], options=options)
print("seconds_without_imports %.3f" % (time.monotonic() - start))
