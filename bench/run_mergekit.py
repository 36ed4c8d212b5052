#!/usr/bin/env python3
"""Runs one merge or assembly with mergekit and prints how long it took without the imports: run_mergekit.py CONFIG OUT"""

import os
import resource
import sys
import time

import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.moe.config import MoEMergeConfig
from mergekit.options import MergeOptions
from mergekit.scripts.moe import build

VOCABULARY = 16000


def give_tokenizer(directory):
    """mergekit-moe loads one even for random gates. Its words are the ids, so that prompts say which tokens they are."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    if not os.path.exists(os.path.join(directory, "tokenizer.json")):
        tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="2", unk_token="0", pad_token="2").save_pretrained(directory)


def prompts_of(expert):
    ids = expert.pop("positive_token_ids", None)
    return {**expert, "positive_prompts": [" ".join(map(str, prompt)) for prompt in ids]} if ids else expert


with open(sys.argv[1], encoding="utf-8") as file:
    config = yaml.safe_load(file)
options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
if "experts" in config:
    give_tokenizer(config["base_model"])
    config["experts"] = [prompts_of(expert) for expert in config["experts"]]
start = time.monotonic()
if "experts" in config:
    build(MoEMergeConfig.model_validate(config), sys.argv[2], options, device="cpu")
else:
    run_merge(MergeConfiguration.model_validate(config), sys.argv[2], options=options)
print("seconds_without_imports %.3f" % (time.monotonic() - start))
print("peak_memory_bytes %d" % (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
