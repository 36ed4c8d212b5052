"""Experts added to a mixture: what was there stays bit for bit, and readers load the result."""

import json
import re

import pytest
import torch
import yaml

from conftest import load5, logits4_of_all, logits5, merge, tensors
from mixture_families import CONFIGS, NOT_IN_TRANSFORMERS4, make_mixture

GROUPS = {family: fields.get("n_group", 1) for family, (_, fields) in CONFIGS.items()}


def adding(base, other, **more):
    """Two experts: one of the other mixture, and the base's own expert 0 again."""
    experts = [{"source_model": str(other), "expert": 1}, {"source_model": str(base), "expert": 0}]
    return yaml.dump({"base_model": str(base), "gate_mode": "uniform_random", "experts": experts, **more})


def places(groups):
    """Where the four old experts and the two new ones stand."""
    size = 6 // groups
    new = [g * size + size - 1 for g in range(groups)] if groups == 2 else [4, 5]
    return [i for i in range(6) if i not in new], new


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    root = tmp_path_factory.mktemp("adding")
    known = {}

    def get(family):
        if family not in known:
            base, other = (make_mixture(root, family, seed) for seed in (1, 2))
            known[family] = (base, other, merge(root, adding(base, other), name=f"{family}-added"))
        return known[family]

    return get


@pytest.mark.parametrize("family", CONFIGS)
def test_what_was_there_stays_and_new_experts_are_their_sources(added, family):
    base, other, out = added(family)
    old, new = places(GROUPS[family])
    before, theirs, after = tensors(base), tensors(other), tensors(out)
    for name, value in after.items():
        expert = re.search(r"\.experts\.(\d+)\.", name)
        if expert:
            index = int(expert.group(1))
            own = lambda n: name.replace(expert.group(0), f".experts.{n}.")
            expected = before[own(old.index(index))] if index in old else theirs[own(1)] if index == new[0] else before[own(0)]
            assert torch.equal(value, expected), name
        elif value.shape == before[name].shape:
            assert torch.equal(value, before[name].to(value.dtype)), name
        elif ".input_linear." in name or ".output_linear." in name:
            assert torch.equal(value[:4], before[name]) and torch.equal(value[4], theirs[name][1]) and torch.equal(value[5], before[name][0]), name
        else:
            assert value.shape[0] == 6 and torch.equal(value[old], before[name].to(value.dtype)), name
            if "correction" in name:
                size = 4 // GROUPS[family]
                for group, place in enumerate(new):
                    mean = before[name][group * size:(group + 1) * size].double().mean() if GROUPS[family] > 1 else before[name].double().mean()
                    assert value.dtype == torch.float32 and abs(value[place].double() - mean) <= 1e-7, name
            else:
                assert value[new].abs().max() <= 1 / value.shape[1] ** 0.5 and not torch.equal(value[new[0]], value[new[1]]), name
    model = load5(out)
    config = json.loads((out / "config.json").read_text())
    assert 6 in (config.get("n_routed_experts"), config.get("num_experts"), config.get("num_local_experts"))
    assert config["num_experts_per_tok"] == 2 and model is not None


def test_transformers_4_reads_them_alike(added):
    families = [family for family in CONFIGS if family not in NOT_IN_TRANSFORMERS4]
    outputs = [added(family)[2] for family in families]
    for family, output, logits in zip(families, outputs, logits4_of_all(outputs)):
        assert torch.allclose(logits, logits5(output), atol=2e-4, rtol=2e-3), family


def test_experts_that_are_never_chosen_change_nothing(tmp_path):
    base = make_mixture(tmp_path, "mixtral", 1)
    out = merge(tmp_path, adding(base, make_mixture(tmp_path, "mixtral", 2)), "--layout", "fused", name="out")
    model, whole = load5(out), load5(base)
    routers = [parameter for name, parameter in model.named_parameters() if re.search(r"mlp\.gate\.weight$", name)]
    assert len(routers) == 3
    ids = torch.tensor([[1, 5, 9, 100, 33, 7]])
    linear = torch.nn.functional.linear

    def masked(x, weight, bias=None):
        y = linear(x, weight, bias)
        if any(weight.data_ptr() == router.data_ptr() for router in routers):
            y[..., 4:] = -torch.inf
        return y

    with torch.no_grad():
        expected = whole(ids).logits
        torch.nn.functional.linear = masked
        try:
            got = model(ids).logits
        finally:
            torch.nn.functional.linear = linear
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["cheap_embed", "hidden", "hidden_avg", "router_input", "orthogonal", "random"])
def test_gate_modes_make_the_new_rows(tmp_path, mode):
    base, other = (make_mixture(tmp_path, "mixtral", seed) for seed in (1, 2))
    experts = [{"source_model": str(other), "expert": e, "positive_token_ids": [[1, 7 + e, 30]]} for e in (0, 3)]
    out = merge(tmp_path, yaml.dump({"base_model": str(base), "gate_mode": mode, "experts": experts}))
    before, after = tensors(base), tensors(out)
    for layer in range(3):
        name = f"model.layers.{layer}.block_sparse_moe.gate.weight"
        rows = after[name]
        assert torch.equal(rows[:4], before[name]) and rows.shape[0] == 6
        if mode != "random":
            assert torch.allclose(rows[4:].float().norm(dim=1), torch.ones(2), atol=0.02)
    if mode == "hidden":  # what enters layer 0 is the embedding
        row = before["model.embed_tokens.weight"][30].double()
        row = row / row.norm()
        assert torch.allclose(after["model.layers.0.block_sparse_moe.gate.weight"][4].double(), row, atol=0.01)
