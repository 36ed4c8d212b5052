"""Tiny mixtures of every family that transformers has."""

import re
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

COMMON = dict(vocab_size=160, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
              bos_token_id=1, eos_token_id=2)
NARROW = dict(intermediate_size=24, num_experts_per_tok=2)
BOTH = dict(moe_intermediate_size=24, intermediate_size=48, num_experts_per_tok=2)
LATENT = dict(kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8, num_key_value_heads=4)
ROUTED = dict(n_routed_experts=4, n_shared_experts=2, first_k_dense_replace=1)

CONFIGS = {
    "mixtral": ("MixtralConfig", dict(NARROW, num_local_experts=4, head_dim=8)),
    "qwen2_moe": ("Qwen2MoeConfig", dict(BOTH, num_experts=4, shared_expert_intermediate_size=40, decoder_sparse_step=2)),
    "qwen3_moe": ("Qwen3MoeConfig", dict(BOTH, num_experts=4, head_dim=16, mlp_only_layers=[0])),
    "deepseek_v2": ("DeepseekV2Config", dict(BOTH, **LATENT, **ROUTED, q_lora_rank=8, topk_method="greedy", n_group=1, topk_group=1)),
    "deepseek_v2_lite": ("DeepseekV2Config", dict(BOTH, **LATENT, **ROUTED, q_lora_rank=None, topk_method="greedy", n_group=1, topk_group=1)),
    "deepseek_v3": ("DeepseekV3Config", dict(BOTH, **LATENT, **ROUTED, q_lora_rank=8, n_group=2, topk_group=1, num_nextn_predict_layers=0)),
    "glm4_moe": ("Glm4MoeConfig", dict(BOTH, **ROUTED, n_group=1, topk_group=1, head_dim=16, use_qk_norm=True, attention_bias=True,
                                       num_nextn_predict_layers=0)),
    "olmoe": ("OlmoeConfig", dict(NARROW, num_experts=4, pad_token_id=0)),
    "phimoe": ("PhimoeConfig", dict(NARROW, num_local_experts=4, attention_bias=True, lm_head_bias=True)),
    "minimax_m2": ("MiniMaxM2Config", dict(NARROW, num_local_experts=4, head_dim=16)),
    "granitemoe": ("GraniteMoeConfig", dict(NARROW, num_local_experts=4, attention_multiplier=0.3, embedding_multiplier=2.0, logits_scaling=3.0,
                                            residual_multiplier=0.5)),
    "granitemoeshared": ("GraniteMoeSharedConfig", dict(NARROW, num_local_experts=4, shared_intermediate_size=40)),
}
NOT_IN_TRANSFORMERS4 = {"minimax_m2"}
ALWAYS_FUSED = {"granitemoe", "granitemoeshared"}


def make_mixture(root: Path, family: str, seed: int, base=None, dtype=torch.bfloat16, scale=0.02, **changes) -> Path:
    """Random weights, biases and norms included; with `base`, that model's plus small differences."""
    where = root / f"{family}-{seed}-{str(dtype)[6:]}-{abs(hash((str(base), str(changes))))}"
    if where.exists():
        return where
    name, fields = CONFIGS[family]
    torch.manual_seed(seed)
    config = getattr(transformers, name)(**{**COMMON, **fields, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config)
    source = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict() if base else None
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if not value.is_floating_point() or "inv_freq" in key:
                continue
            noise = torch.randn_like(value)
            if source is not None:
                value.copy_(source[key] + scale * noise)
            elif "norm" in key and key.endswith("weight"):
                value.copy_(1 + 0.1 * noise)
            else:
                value.copy_(0.1 * noise)
    model.to(dtype).save_pretrained(where)
    return where


def add_mtp_layer(directory: Path, seed: int) -> None:
    """What DeepSeek-V3 and GLM-4.5 have after their last layer; transformers leaves it unread."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    last = max(int(re.match(r"model\.layers\.(\d+)\.", name).group(1)) for name in tensors if ".layers." in name)
    generator = torch.Generator().manual_seed(seed)
    noise = lambda like, *shape: torch.randn(shape or like.shape, generator=generator).to(like.dtype)
    embedding = tensors["model.embed_tokens.weight"]
    hidden = embedding.shape[1]
    prefix = f"model.layers.{last + 1}."
    for name in [name for name in tensors if name.startswith(f"model.layers.{last}.")]:
        tensors[prefix + name.split(".", 3)[3]] = noise(tensors[name])
    for name, shape in (("embed_tokens", embedding.shape), ("enorm", (hidden,)), ("hnorm", (hidden,)), ("eh_proj", (hidden, 2 * hidden)),
                        ("shared_head.norm", (hidden,)), ("shared_head.head", embedding.shape)):
        tensors[prefix + name + ".weight"] = noise(embedding, *shape)
    save_file(tensors, file, metadata={"format": "pt"})
