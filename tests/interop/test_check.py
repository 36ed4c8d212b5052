"""moeweld's forward pass against transformers in float32: logits, predictions, perplexity."""

import json
import math
import os
import subprocess
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import run

SMALL = dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, bos_token_id=1, eos_token_id=2)
ROPES = {
    "default": dict(rope_type="default", rope_theta=500000.0),
    "linear": dict(rope_type="linear", factor=4.0, rope_theta=100000.0),
    "dynamic": dict(rope_type="dynamic", factor=2.0, rope_theta=10000.0),
    "yarn": dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, rope_theta=10000.0),
    "yarn-mscale": dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=16, beta_fast=16.0, beta_slow=2.0, mscale=1.0,
                        mscale_all_dim=0.5, truncate=False, rope_theta=5000.0),
    "llama3": dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32,
                   rope_theta=10000.0),
}
MOE = dict(num_experts_per_tok=2, moe_intermediate_size=48, num_experts=6)

# name: (class of the config, its fields)
MODELS = {
    **{f"llama rope {name}": ("LlamaConfig", dict(rope_parameters=dict(rope), max_position_embeddings=48)) for name, rope in ROPES.items()},
    "llama biases, wide heads": ("LlamaConfig", dict(attention_bias=True, mlp_bias=True, head_dim=24, rms_norm_eps=1e-4)),
    "llama tied, one kv head": ("LlamaConfig", dict(tie_word_embeddings=True, num_key_value_heads=1)),
    "llama gelu": ("LlamaConfig", dict(hidden_act="gelu_pytorch_tanh", num_key_value_heads=4)),
    "mistral": ("MistralConfig", dict(sliding_window=None, head_dim=24)),
    "mistral window": ("MistralConfig", dict(sliding_window=7)),
    "qwen2": ("Qwen2Config", dict()),
    "qwen2 window": ("Qwen2Config", dict(use_sliding_window=True, sliding_window=9, max_window_layers=1)),
    "qwen2 yarn": ("Qwen2Config", dict(rope_parameters=dict(ROPES["yarn"]), tie_word_embeddings=True)),
    "qwen3": ("Qwen3Config", dict(head_dim=32)),
    "qwen3 window": ("Qwen3Config", dict(head_dim=16, use_sliding_window=True, sliding_window=9, max_window_layers=2, attention_bias=True)),
    "granite": ("GraniteConfig", dict(attention_multiplier=0.2, embedding_multiplier=3.0, logits_scaling=4.0, residual_multiplier=0.6)),
    "mixtral": ("MixtralConfig", dict(num_local_experts=4, num_experts_per_tok=2, head_dim=16)),
    "mixtral window, dynamic": ("MixtralConfig", dict(num_local_experts=5, num_experts_per_tok=3, head_dim=16, sliding_window=11,
                                                      max_position_embeddings=48, rope_parameters=dict(ROPES["dynamic"]))),
    "qwen2_moe": ("Qwen2MoeConfig", dict(MOE, shared_expert_intermediate_size=80, norm_topk_prob=False)),
    "qwen2_moe renormalised": ("Qwen2MoeConfig", dict(MOE, shared_expert_intermediate_size=80, norm_topk_prob=True, decoder_sparse_step=2)),
    "qwen3_moe": ("Qwen3MoeConfig", dict(MOE, head_dim=24, norm_topk_prob=True, mlp_only_layers=[1])),
    "qwen3_moe as is": ("Qwen3MoeConfig", dict(MOE, head_dim=16, norm_topk_prob=False, rope_parameters=dict(ROPES["yarn"]))),
    "granitemoe": ("GraniteMoeConfig", dict(num_local_experts=4, num_experts_per_tok=2, attention_multiplier=0.25, embedding_multiplier=2.0,
                                            logits_scaling=3.0, residual_multiplier=0.5)),
    "granitemoeshared": ("GraniteMoeSharedConfig", dict(num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=40,
                                                        attention_multiplier=0.25)),
}


def fill(model, seed, scale=0.15):
    """Weights that make attention look somewhere and logits differ, biases and norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not value.is_floating_point() or "inv_freq" in name:
                continue
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(1 + 0.1 * noise if "norm" in name and name.endswith("weight") else scale * noise)
    return model.eval()


def make(tmp_path, name, seed=1, dtype=torch.float32):
    config_class, fields = MODELS[name]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config_class)(**{**SMALL, **fields}))
    fill(model, seed).to(dtype).save_pretrained(tmp_path / "model")
    return model.float(), tmp_path / "model"


def sequences(seed=7, lengths=(1, 2, 17, 40, 90)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, SMALL["vocab_size"], (length,), generator=generator).tolist() for length in lengths]


def check(model, ids, tmp_path, *flags, ranks=1):
    (tmp_path / "ids.txt").write_text("".join(json.dumps(line) + "\n" for line in ids))
    return json.loads(run("check", model, "--token-ids", tmp_path / "ids.txt", "--json", "--last-logits", *flags, ranks=ranks).stdout)


def expect_same(answer, model, ids):
    """What `check` says against a torch model that maps a row of ids to logits."""
    assert answer["finite"] is True and answer["ids"] == ids
    nll, count = 0.0, 0
    for i, line in enumerate(ids):
        with torch.no_grad():
            logits = model(torch.tensor([line]))
            logits = (logits if torch.is_tensor(logits) else logits.logits)[0].double()
        mine = torch.tensor(answer["last_logits"][i], dtype=torch.float64)
        error = (mine - logits[-1]).abs().max() / logits[-1].abs().max()
        assert error < 1e-4, f"sequence {i}: logits differ by {error:.2e}"
        assert answer["next_tokens"][i] == int(logits[-1].argmax())
        assert answer["predictions"][i] == logits.argmax(-1).tolist()
        assert abs(answer["next_token_probabilities"][i] - float(logits[-1].softmax(-1).max())) < 1e-4
        for t in range(1, len(line)):
            nll -= float(logits[t - 1].log_softmax(-1)[line[t]])
            count += 1
    assert answer["scored_tokens"] == count
    assert answer["perplexity"] == pytest.approx(math.exp(nll / count), rel=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_transformers(tmp_path, name):
    model, where = make(tmp_path, name)
    # Every position beyond the trained length too, where dynamic ropes stretch.
    expect_same(check(where, sequences(), tmp_path), model, sequences())


def test_older_rope_fields_and_half_precision_files(tmp_path):
    """transformers 4 writes rope_theta and rope_scaling; most checkpoints are bfloat16, some float16."""
    for dtype in (torch.bfloat16, torch.float16):
        where = tmp_path / str(dtype)[6:]
        where.mkdir()
        _, directory = make(where, "llama rope yarn", dtype=dtype)
        config = json.loads((directory / "config.json").read_text())
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}
        (directory / "config.json").write_text(json.dumps(config))
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        expect_same(check(directory, sequences(), where), model, sequences())


class DeepseekMoe(nn.Module):
    """DeepSeek v1's routing (arXiv 2401.06066 and its released modeling code): softmax over all, top-k, renormalised only where the config
    says so, plus the shared experts as they are."""

    def __init__(self, mlp, config, experts, top_k, renormalise):
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, experts, bias=False)
        self.experts = nn.ModuleList(mlp(48) for _ in range(experts))
        self.shared_experts = mlp(96)
        self.top_k, self.renormalise = top_k, renormalise

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = self.gate(flat).softmax(-1).topk(self.top_k, dim=-1)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        out = torch.stack([sum(w * self.experts[e](row) for w, e in zip(ws, es)) for row, ws, es in zip(flat, weights, chosen.tolist())])
        return out.reshape(x.shape) + self.shared_experts(x)


def make_deepseek(where, renormalise, **changes):
    """A DeepSeek v1 with a dense first layer, six routed experts and two shared ones, and its torch reference."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    size = {**SMALL, **changes}
    config = transformers.LlamaConfig(**size, rope_parameters=dict(ROPES["linear"]))
    model = transformers.LlamaForCausalLM(config)

    def mlp(width):
        return LlamaMLP(transformers.LlamaConfig(**{**size, "intermediate_size": width}))

    for layer in model.model.layers[1:]:
        layer.mlp = DeepseekMoe(mlp, config, experts=6, top_k=3, renormalise=renormalise)
    fill(model, seed=3)
    where.mkdir()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, where / "model.safetensors")
    (where / "config.json").write_text(json.dumps({
        **{key: size[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                                      "num_key_value_heads", "max_position_embeddings")},
        "architectures": ["DeepseekForCausalLM"], "model_type": "deepseek", "hidden_act": "silu", "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": 100000.0, "rope_scaling": {"type": "linear", "factor": 4.0}, "n_routed_experts": 6, "n_shared_experts": 2,
        "num_experts_per_tok": 3, "moe_intermediate_size": 48, "first_k_dense_replace": 1, "moe_layer_freq": 1, "scoring_func": "softmax",
        "norm_topk_prob": renormalise, "tie_word_embeddings": False, "torch_dtype": "float32"}))
    return model, where


@pytest.mark.parametrize("renormalise", [False, True])
def test_deepseek_v1_against_a_torch_reference(tmp_path, renormalise):
    model, where = make_deepseek(tmp_path / "model", renormalise)
    expect_same(check(where, sequences(), tmp_path), model, sequences())


@pytest.mark.skipif("MOEWELD_VLLM" not in os.environ, reason="MOEWELD_VLLM names no Python that has vLLM")
def test_deepseek_v1_against_vllm(tmp_path):
    """vLLM's attention on processors wants heads of 32 or more; the published models do not renormalise."""
    _, where = make_deepseek(tmp_path / "model", renormalise=False, hidden_size=256, intermediate_size=256)
    done = subprocess.run([os.environ["MOEWELD_VLLM"], Path(__file__).parent / "vllm_logits.py", where], input=json.dumps(sequences()),
                          capture_output=True, text=True, timeout=300, env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"})
    theirs = [torch.tensor(json.loads(line[7:]), dtype=torch.float64) for line in done.stdout.splitlines() if line.startswith("logits ")]
    assert [len(rows) for rows in theirs] == [len(ids) for ids in sequences()], done.stdout[-2000:] + done.stderr[-4000:]
    expect_same(check(where, sequences(), tmp_path), lambda ids: theirs[sequences().index(ids[0].tolist())][None], sequences())


def test_same_answer_on_any_number_of_ranks(tmp_path):
    _, where = make(tmp_path, "qwen2_moe")
    alone, many = (check(where, sequences(), tmp_path, *flags, ranks=ranks) for ranks, flags in ((1, ()), (3, ("--threads", 2))))
    for key in ("perplexity", "last_logits", "predictions", "next_token_probabilities", "log_likelihood", "read_bytes"):
        assert alone[key] == many[key], key


def test_other_families_are_refused_by_name(workshop, tmp_path):
    (tmp_path / "ids.txt").write_text("[1, 2]\n")
    result = run("check", workshop.model("gemma2"), "--token-ids", tmp_path / "ids.txt", ok=False)
    assert result.returncode == 4 and "Gemma2ForCausalLM" in result.stderr and "qwen3_moe" in result.stderr


# --- a damaged model is noticed -------------------------------------------------------------------------------------------------------------


def own_text(model, starts, length=60):
    """What the model itself says: text that it predicts well, as a real model predicts real text."""
    with torch.no_grad():
        return [model.generate(torch.tensor([[start]]), max_new_tokens=length, min_new_tokens=length, do_sample=False)[0].tolist()
                for start in starts]


def damage_rope(config, tensors):
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_parameters"]["rope_theta"]}


def damage_transposed(config, tensors):
    name = "model.layers.1.self_attn.o_proj.weight"
    tensors[name] = tensors[name].T.contiguous()


@pytest.mark.parametrize("damage", [damage_rope, damage_transposed])
def test_a_lost_rope_scaling_and_a_transposed_matrix_show_in_the_perplexity(tmp_path, damage):
    model, where = make(tmp_path, "llama rope linear")
    text = own_text(model, (5, 77, 130))
    before = check(where, text, tmp_path)
    config, tensors = json.loads((where / "config.json").read_text()), load_file(where / "model.safetensors")
    damage(config, tensors)
    (where / "config.json").write_text(json.dumps(config))
    save_file(tensors, where / "model.safetensors", metadata={"format": "pt"})
    after = check(where, text, tmp_path)
    assert after["perplexity"] > 2 * before["perplexity"], (before["perplexity"], after["perplexity"])
    wrong = [sum(p != t for p, t in zip(a["predictions"][i][:-1], text[i][1:])) for a in (before, after) for i in range(3)]
    assert sum(wrong[:3]) == 0 and sum(wrong[3:]) > 20, wrong


def test_weights_that_overflow_are_named_with_their_layer(tmp_path):
    _, where = make(tmp_path, "llama rope default")
    tensors = load_file(where / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 4] = float("nan")
    save_file(tensors, where / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "ids.txt").write_text("[1, 2, 3]\n")
    result = run("check", where, "--token-ids", tmp_path / "ids.txt", ok=False)
    assert result.returncode == 10 and "first leaves layer 1" in result.stdout
