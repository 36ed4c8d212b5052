"""Mixtures whose experts and neurons stand in another order, which compute what they computed before."""

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

EXPERT = re.compile(r"(.*\.)experts\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.(weight|weight_scale_inv)$")
DOWN = {"down_proj", "w2"}
FUSED_GATE_UP = ("experts.gate_up_proj", "block_sparse_moe.input_linear.weight")
FUSED_DOWN = ("experts.down_proj", "block_sparse_moe.output_linear.weight")
BY_EXPERT = (".gate.weight", ".mlp.router.weight", "router.layer.weight", "e_score_correction_bias")


def layer_of(name: str) -> str | None:
    found = re.match(r"model\.layers\.(\d+)\.", name)
    return found and found.group(1)


def shuffle_experts(source, out: Path, seed: int, groups: int = 1, experts: bool = True, neurons: bool = True):
    """Returns, by layer, which expert of the source stands where: whole groups change places, and experts within a group.
    Block-scaled experts keep their neurons in order: another order would have other blocks."""
    shutil.copytree(source, out)
    file = out / "model.safetensors"
    tensors = load_file(file)
    generator = torch.Generator().manual_seed(seed)
    shuffled = lambda count, on: torch.randperm(count, generator=generator) if on else torch.arange(count)
    orders, result = {}, {}
    for name, value in sorted(tensors.items()):
        layer = layer_of(name)
        if layer and name.endswith(BY_EXPERT) and layer not in orders:
            count = value.shape[0]
            members = count // groups
            orders[layer] = torch.cat([group * members + shuffled(members, experts) for group in shuffled(groups, experts).tolist()])
    widths = {}
    for name, value in tensors.items():
        if (found := EXPERT.match(name)) and found.group(4) == "weight":
            widths[layer_of(name), int(found.group(2))] = value.shape[1] if found.group(3) in DOWN else value.shape[0]
        elif name.endswith(FUSED_DOWN):
            widths.update({(layer_of(name), expert): value.shape[2] for expert in range(value.shape[0])})
    inner = {key: shuffled(width, neurons) for key, width in sorted(widths.items())}
    for name, value in tensors.items():
        layer = layer_of(name)
        if found := EXPERT.match(name):
            expert = int(found.group(2))
            origin = int(orders[layer][expert])
            value = tensors[f"{found.group(1)}experts.{origin}.{found.group(3)}.{found.group(4)}"]
            if neurons:
                order = inner[layer, origin]
                value = value[:, order] if found.group(3) in DOWN else value[order]
        elif name.endswith(FUSED_GATE_UP):
            halves = [value[e].chunk(2) for e in orders[layer].tolist()]
            value = torch.stack([torch.cat([half[inner[layer, e]] for half in pair]) for e, pair in zip(orders[layer].tolist(), halves)])
        elif name.endswith(FUSED_DOWN):
            value = torch.stack([value[e][:, inner[layer, e]] for e in orders[layer].tolist()])
        elif layer and name.endswith(BY_EXPERT):
            value = value[orders[layer]]
        result[name] = value.contiguous()
    save_file(result, file, metadata={"format": "pt"})
    return {int(layer): order.tolist() for layer, order in orders.items()}


def make_deepseek_v1(glm: Path, out: Path) -> Path:
    """transformers has no DeepSeek v1; a GLM-4.5 without biases, head norms and correction has the same tensors."""
    shutil.copytree(glm, out)
    tensors = {name: value for name, value in load_file(glm / "model.safetensors").items() if not name.endswith("e_score_correction_bias")}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((glm / "config.json").read_text())
    config.update(architectures=["DeepseekForCausalLM"], model_type="deepseek", scoring_func="softmax")
    (out / "config.json").write_text(json.dumps(config))
    return out
