"""Mixtures with fewer experts: what stays is what it was, and readers compute what the whole mixture does when it cannot route to the rest."""

import contextlib
import json
import re

import pytest
import torch
from safetensors.torch import save_file

from conftest import load5, logits4_of_all, logits5, run, tensors
from mixture_families import CONFIGS, NOT_IN_TRANSFORMERS4, make_mixture

IDS = torch.tensor([[1, 5, 9, 100, 33, 7]])
ROUTER = re.compile(r"(mlp\.gate|\brouter|router\.layer)\.weight$")
CORRECTION = re.compile(r"e_score_correction_bias$")
NUM_EXPERTS = 8
KEPT = 6
EXPERT = re.compile(r"\.experts\.(\d+)\.")


def eight_experts(root, family):
    key = next(key for key in ("n_routed_experts", "num_experts", "num_local_experts") if key in CONFIGS[family][1])
    return make_mixture(root, family, 1, **{key: NUM_EXPERTS})


def routers(directory):
    """layer → the router's rows, as float64."""
    return {int(re.search(r"layers\.(\d+)\.", name).group(1)): value.double() for name, value in tensors(directory).items()
            if re.search(r"(mlp\.gate|block_sparse_moe\.gate|router\.layer)\.weight$", name)}


def kept_experts(directory, groups):
    """layer → the experts whose router rows are longest, as many of every group."""
    kept = {}
    for layer, rows in routers(directory).items():
        norms, size = rows.norm(dim=1), NUM_EXPERTS // groups
        kept[layer] = sorted(sum(((norms[g * size:(g + 1) * size].argsort(descending=True)[:KEPT // groups] + g * size).tolist() for g in range(groups)), []))
    return kept


@contextlib.contextmanager
def masked_routers(model, kept):
    """Routers never choose an expert that is not kept: its logit, and what corrects it, is minus infinity."""
    gone, linear = {}, torch.nn.functional.linear
    for name, value in list(model.named_parameters()) + list(model.named_buffers()):
        layer = re.search(r"layers\.(\d+)\.", name)
        if layer is None or int(layer.group(1)) not in kept:
            continue
        others = [expert for expert in range(NUM_EXPERTS) if expert not in kept[int(layer.group(1))]]
        if ROUTER.search(name):
            assert value.shape[0] == NUM_EXPERTS, name
            gone[value.data_ptr()] = others
        elif CORRECTION.search(name):
            with torch.no_grad():
                value[others] = -torch.inf
    assert len(gone) == len(kept)

    def masked(x, weight, bias=None):
        y = linear(x, weight, bias)
        if weight.data_ptr() in gone:
            y[..., gone[weight.data_ptr()]] = -torch.inf
        return y

    torch.nn.functional.linear = masked
    try:
        yield
    finally:
        torch.nn.functional.linear = linear


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """family → (mixture, the same with all its experts, with fewer, the experts that should be left)."""
    root = tmp_path_factory.mktemp("reduce")
    known = {}

    def get(family):
        if family not in known:
            source = eight_experts(root, family)
            run("reduce", source, root / f"{family}-all", "--experts", NUM_EXPERTS, "-q")
            run("reduce", source, root / f"{family}-pruned", "--experts", KEPT, "-q")
            run("verify", root / f"{family}-pruned", "-q")
            known[family] = (source, root / f"{family}-all", root / f"{family}-pruned", kept_experts(source, CONFIGS[family][1].get("n_group", 1)))
        return known[family]

    return get


@pytest.mark.parametrize("family", CONFIGS)
def test_all_experts_kept_is_the_same_model(pruned, family):
    source, everything, _, _ = pruned(family)
    before, after = tensors(source), tensors(everything)
    assert set(before) == set(after)
    for name, value in after.items():
        assert torch.equal(value, before[name].to(value.dtype)), name
        assert value.dtype == (torch.float32 if CORRECTION.search(name) else torch.bfloat16), name
    assert torch.equal(logits5(everything), logits5(source))


@pytest.mark.parametrize("family", CONFIGS)
def test_pruned_experts_are_as_if_they_could_not_be_chosen(pruned, family):
    source, _, out, kept = pruned(family)
    config = json.loads((out / "config.json").read_text())
    assert KEPT in (config.get("n_routed_experts"), config.get("num_experts"), config.get("num_local_experts"))
    before, after = tensors(source), tensors(out)
    for name, value in after.items():
        layer, expert = re.search(r"layers\.(\d+)\.", name), EXPERT.search(name)
        if expert:
            theirs = name.replace(expert.group(0), f".experts.{kept[int(layer.group(1))][int(expert.group(1))]}.")
            assert torch.equal(value, before[theirs]), name
        elif value.shape != before[name].shape:
            assert torch.equal(value, before[name][kept[int(layer.group(1))]]), name
        else:
            assert torch.equal(value, before[name]), name
    model = load5(source)
    with torch.no_grad(), masked_routers(model, kept):
        expected = model(IDS).logits
    assert not torch.allclose(expected, logits5(source), atol=1e-4), "the experts that are gone made no difference"
    assert torch.allclose(logits5(out), expected, atol=1e-5, rtol=1e-4)


def test_transformers_4_reads_what_is_left(pruned):
    families = [family for family in CONFIGS if family not in NOT_IN_TRANSFORMERS4]
    outputs = [pruned(family)[2] for family in families]
    for family, output, logits in zip(families, outputs, logits4_of_all(outputs)):
        assert torch.allclose(logits, logits5(output), atol=2e-4, rtol=2e-3), family


def test_clusters_become_their_weighted_means(tmp_path):
    """Experts 4 to 7 are experts 2, 0, 3 and 1 with a little noise, so they belong together."""
    source = eight_experts(tmp_path, "deepseek_v2")
    file = source / "model.safetensors"
    pairs = {0: 5, 1: 7, 2: 4, 3: 6}
    generator, values = torch.Generator().manual_seed(0), tensors(source)
    for name in values:
        match = EXPERT.search(name)
        if match and int(match.group(1)) in pairs:
            twin = name.replace(match.group(0), f".experts.{pairs[int(match.group(1))]}.")
            values[twin] = (values[name].float() + 0.01 * torch.randn(values[name].shape, generator=generator)).bfloat16()
    save_file(values, file, metadata={"format": "pt"})
    usage = [1, 2, 3, 4, 9, 3, 4, 0]
    (tmp_path / "usage.json").write_text(json.dumps({"1": usage, "2": usage}))
    run("reduce", source, tmp_path / "out", "--experts", 4, "--by", "cluster", "--scores", tmp_path / "usage.json", "-q", ranks=2)
    ours = tensors(tmp_path / "out")
    logits5(tmp_path / "out")

    def mean(own, other, weights):
        return ((weights[0] * own.double() + weights[1] * other.double()) / sum(weights))

    for name, value in ours.items():
        match = EXPERT.search(name)
        if match:
            index = int(match.group(1))
            twin = name.replace(match.group(0), f".experts.{pairs[index]}.")
            expected = mean(values[name], values[twin], (usage[index], usage[pairs[index]]))
        elif name.endswith("mlp.gate.weight"):
            expected = torch.stack([mean(values[name][e], values[name][pairs[e]], (usage[e], usage[pairs[e]])) for e in range(4)])
        else:
            expected = values[name].double()
        assert torch.allclose(value.double(), expected, rtol=2 ** -8, atol=1e-9), name
    manifest = json.loads((tmp_path / "out" / "moeweld_manifest.json").read_text())
    assert "layer 1: merged 0 (0.25) + 5 (0.75), 1 (1.0) + 7 (0.0), 2 (0.25) + 4 (0.75), 3 + 6" in manifest["composition"]
