"""Tiny models made by transformers, moeweld as a program, and readers of what it wrote."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
import transformers
from safetensors import safe_open

MOEWELD = os.environ["MOEWELD"]
TRANSFORMERS4 = os.environ["MOEWELD_TRANSFORMERS4"]
MPI = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]

COMMON = dict(vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=256, bos_token_id=1, eos_token_id=2)


def make_config(family: str, **changes):
    t = transformers
    c = {**COMMON, **changes}
    if family == "llama":
        return t.LlamaConfig(**c)
    if family == "mistral":
        return t.MistralConfig(sliding_window=None, **c)
    if family == "qwen2":
        return t.Qwen2Config(**c)
    if family == "qwen3":
        return t.Qwen3Config(head_dim=16, **c)
    if family == "mixtral":
        return t.MixtralConfig(num_local_experts=4, num_experts_per_tok=2, **c)
    if family == "gemma2":
        return t.Gemma2Config(head_dim=16, **c)
    if family == "phi":
        c.pop("num_key_value_heads")
        return t.PhiConfig(**c)
    if family == "gpt2":
        return t.GPT2Config(vocab_size=320, n_embd=64, n_inner=128, n_layer=4, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2)
    if family == "bert":
        return t.BertConfig(vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4)
    if family == "whisper":
        return t.WhisperConfig(vocab_size=320, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
                               encoder_ffn_dim=128, decoder_ffn_dim=128, num_mel_bins=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                               decoder_start_token_id=1)
    raise ValueError(family)


def auto_class(family: str):
    return {"bert": transformers.AutoModel, "whisper": transformers.AutoModelForSpeechSeq2Seq}.get(family, transformers.AutoModelForCausalLM)


class Workshop:
    """Makes models below one directory, each once."""

    def __init__(self, root: Path):
        self.root = root

    def model(self, family="llama", seed=0, dtype=torch.bfloat16, base=None, scale=0.01, shard="5GB", **changes) -> str:
        """A model; with `base`, the base's weights plus small differences, as a fine-tune has them."""
        name = f"{family}-{seed}-{str(dtype)[6:]}-{shard}-{abs(hash((base, tuple(sorted(map(str, changes.items()))))))}"
        where = self.root / name
        if where.exists():
            return str(where)
        torch.manual_seed(seed)
        config = make_config(family, **changes)
        model = auto_class(family).from_config(config)
        if base:
            source = auto_class(family).from_pretrained(base, dtype=torch.float32)
            with torch.no_grad():
                for (_, value), (_, own) in zip(source.named_parameters(), model.named_parameters()):
                    own.copy_(value + scale * torch.randn_like(value))
        model.to(dtype).save_pretrained(where, max_shard_size=shard)
        return str(where)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("models"))


def run(*arguments, ranks=1, ok=True, env=None):
    command = (MPI + ["-n", str(ranks)] if ranks > 1 else []) + [MOEWELD, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})})
    if ok:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def merge(tmp_path: Path, config: str, *flags, ranks=1, name="out") -> Path:
    (tmp_path / f"{name}.yml").write_text(config)
    run("merge", tmp_path / f"{name}.yml", tmp_path / name, "-q", *flags, ranks=ranks)
    run("verify", tmp_path / name, "-q")
    return tmp_path / name


def tensors(directory) -> dict:
    result = {}
    for file in sorted(Path(directory).glob("*.safetensors")):
        with safe_open(file, framework="pt") as f:
            for key in f.keys():
                assert key not in result, f"{key} is in two files"
                result[key] = f.get_tensor(key)
    return result


def load5(directory, family="llama"):
    model, info = auto_class(family).from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    return model.eval()


def logits5(directory, family="llama", ids=(1, 5, 9, 100, 33, 7)):
    with torch.no_grad():
        out = load5(directory, family)(torch.tensor([ids])).logits
    assert torch.isfinite(out).all()
    return out


LOAD4 = """
import json, sys, torch, transformers
assert transformers.__version__.startswith("4."), transformers.__version__
for directory in sys.argv[1:]:
    model, info = transformers.AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float32, output_loading_info=True)
    with torch.no_grad():
        logits = model.eval()(torch.tensor([[1, 5, 9, 100, 33, 7]])).logits
    print(json.dumps({"missing": list(info["missing_keys"]), "unexpected": list(info["unexpected_keys"]),
                      "mismatched": [str(x) for x in info["mismatched_keys"]], "logits": logits[0].tolist()}))
"""


def logits4_of_all(directories):
    """One process of transformers 4 for all of them: its start takes longer than the models do."""
    result = subprocess.run([sys.executable, "-c", LOAD4, *map(str, directories)], capture_output=True, text=True, timeout=180,
                            env={**os.environ, "PYTHONPATH": TRANSFORMERS4})
    assert result.returncode == 0, result.stderr[-3000:]
    answers = [json.loads(line) for line in result.stdout.strip().splitlines() if line.startswith('{"missing"')]
    assert len(answers) == len(directories)
    outs = []
    for answer in answers:
        assert not answer["missing"] and not answer["unexpected"] and not answer["mismatched"], answer
        outs.append(torch.tensor([answer["logits"]]))
        assert torch.isfinite(outs[-1]).all()
    return outs


def logits4(directory):
    return logits4_of_all([directory])[0]
