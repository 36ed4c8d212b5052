"""align_experts: mixtures whose experts and neurons were shuffled merge as if they had not been, bit for bit, in every family."""

import json

import pytest
import torch
import yaml

from conftest import merge, run, tensors
from mixture_families import ALWAYS_FUSED, CONFIGS, add_mtp_layer, make_mixture
from shuffle_experts import make_deepseek_v1, shuffle_experts

GROUPED_V2 = dict(topk_method="group_limited_greedy", n_group=2, topk_group=1)
VARIANTS = {family: (family, {}) for family in CONFIGS} | {
    "deepseek_v2_grouped": ("deepseek_v2", GROUPED_V2),
    "kimi_k2": ("deepseek_v3", dict(n_group=1, topk_group=1, n_routed_experts=8)),
    "deepseek_v1": ("glm4_moe", dict(use_qk_norm=False, attention_bias=False)),
}
GROUPS = {"deepseek_v3": 2, "deepseek_v2_grouped": 2}


def config(*models, align=None, method="linear", **more):
    entries = [{"model": str(model), "parameters": {"weight": 0.5}} for model in models]
    return yaml.dump({"merge_method": method, "models": entries, **({"align_experts": align} if align is not None else {}), **more})


def alignments(out):
    return json.loads((out / "moeweld_manifest.json").read_text())["alignments"]


def same(a, b):
    x, y = tensors(a), tensors(b)
    assert set(x) == set(y)
    return [name for name in x if not (x[name].dtype == y[name].dtype and torch.equal(x[name], y[name]))] == []


def experts_of(directory, layer):
    """Weights and router rows of a layer's experts, a row each, in float64."""
    named = {name: value.double() for name, value in tensors(directory).items() if name.startswith(f"model.layers.{layer}.")}
    router = next(value for name, value in named.items() if name.endswith(("gate.weight", "router.layer.weight", "router.weight")))
    weights = []
    for expert in range(router.shape[0]):
        own = [value for name, value in sorted(named.items()) if f".experts.{expert}." in name]
        own += [value[expert] for name, value in sorted(named.items()) if value.dim() == 3]
        weights.append(torch.cat([value.flatten() for value in own]))
    return {"weights": torch.stack(weights), "router": router}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """variant → (a, its fine-tune b, b shuffled, the shuffle, the merge of a and b)."""
    root = tmp_path_factory.mktemp("alignment")
    known = {}

    def get(variant):
        if variant not in known:
            family, changes = VARIANTS[variant]
            a = make_mixture(root, family, 1, **changes)
            b = make_mixture(root, family, 2, base=a, **changes)
            if variant == "deepseek_v1":
                a, b = (make_deepseek_v1(model, root / f"v1-{model.name}") for model in (a, b))
            shuffled = root / f"{variant}-shuffled"
            orders = shuffle_experts(b, shuffled, 3, GROUPS.get(variant, 1))
            known[variant] = (a, b, shuffled, orders, merge(root, config(a, b), name=f"{variant}-merged"))
        return known[variant]

    return get


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_shuffled_mixture_merges_as_if_it_had_not_been(models, tmp_path, variant):
    a, b, shuffled, orders, expected = models(variant)
    plain = merge(tmp_path, config(a, shuffled), name="plain")
    assert not same(plain, expected)
    out = merge(tmp_path, config(a, shuffled, align=True), name="aligned")
    assert same(out, expected)
    found = {entry["layer"]: entry for entry in alignments(out)}
    assert set(found) == set(orders)
    for layer, order in orders.items():
        # Expert e of the output is expert experts[e] of the shuffled model, where the shuffle put expert e.
        assert [order[e] for e in found[layer]["experts"]] == list(range(len(order)))
        assert found[layer]["weights"]["after"] > 0.9 > found[layer]["weights"]["before"]
    assert run("verify", out).returncode == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fine_tune_of_the_base_comes_out_as_the_identity(models, tmp_path, variant):
    a, b, _, _, expected = models(variant)
    out = merge(tmp_path, config(a, b, align=True))
    assert same(out, expected)
    for entry in alignments(out):
        assert entry["experts"] == list(range(len(entry["experts"]))) and all(neurons is None for neurons in entry["neurons"])
        assert entry["weights"]["before"] == entry["weights"]["after"]


@pytest.mark.parametrize("family", [family for family in CONFIGS if family not in ALWAYS_FUSED])
def test_either_layout_is_aligned(models, tmp_path, family):
    a, b, _, _, expected = models(family)
    fused = merge(tmp_path, config(b), "--layout", "fused", name="fused")
    shuffle_experts(fused, tmp_path / "shuffled", 4, GROUPS.get(family, 1))
    assert same(merge(tmp_path, config(a, tmp_path / "shuffled", align=True), name="mixed"), expected)
    both = merge(tmp_path, config(a, tmp_path / "shuffled", align=True), "--layout", "fused", name="both")
    assert same(both, merge(tmp_path, config(a, b), "--layout", "fused", name="expected"))


@pytest.mark.parametrize("match", ["router", "weights", "both"])
def test_experts_alone_are_aligned(models, tmp_path, match):
    a, b, _, _, expected = models("qwen3_moe")
    shuffle_experts(b, tmp_path / "experts", 5, neurons=False)
    align = {"match": match, "neurons": False}
    assert same(merge(tmp_path, config(a, tmp_path / "experts", align=align), name="aligned"), expected)


@pytest.mark.parametrize("method", ["ties", "task_arithmetic"])
def test_other_methods_and_several_models_are_aligned(models, tmp_path, method):
    a, b, shuffled, _, _ = models("mixtral")
    c = make_mixture(tmp_path, "mixtral", 6, base=a)
    shuffle_experts(c, tmp_path / "c", 7)
    text = dict(method=method, base_model=str(a))
    expected = merge(tmp_path, config(b, c, **text), name="expected")
    assert same(merge(tmp_path, config(shuffled, tmp_path / "c", align=True, **text), name="aligned"), expected)


def test_layers_of_multi_token_prediction_are_aligned(tmp_path):
    a = make_mixture(tmp_path, "deepseek_v3", 1, num_nextn_predict_layers=1)
    add_mtp_layer(a, 8)
    shuffle_experts(a, tmp_path / "shuffled", 9, 2)
    out = merge(tmp_path, config(a, tmp_path / "shuffled", align=True))
    assert same(out, merge(tmp_path, config(a), name="alone"))  # (x + x) / 2
    assert max(entry["layer"] for entry in alignments(out)) == 3


def test_slices_are_aligned_layer_by_layer(models, tmp_path):
    a, b, shuffled, _, _ = models("olmoe")

    def sliced(other, **more):
        source = lambda model, first: {"model": str(model), "layer_range": [first, first + 1], "parameters": {"weight": 1.0}}
        slices = [{"sources": [source(a, 0), source(other, 1)]}, {"sources": [source(a, 2)]}]
        return yaml.dump({"merge_method": "linear", "slices": slices, **more})

    # Layer 1 of the one is not like layer 0 of the other: all that can be asked is that the better order is taken.
    out = merge(tmp_path, sliced(shuffled, align_experts=True), name="aligned")
    (entry,) = alignments(out)
    assert entry["layer"] == 0 and sorted(entry["experts"]) == list(range(4))
    assert entry["weights"]["after"] + entry["router"]["after"] > entry["weights"]["before"] + entry["router"]["before"]


def test_plan_shows_the_orders_and_writes_nothing(models, tmp_path):
    a, _, shuffled, orders, _ = models("mixtral")
    (tmp_path / "merge.yml").write_text(config(a, shuffled, align=True))
    plain = run("plan", tmp_path / "merge.yml").stdout
    assert "open slots: the order of experts and of their neurons in 3 layers" in plain
    found = json.loads(run("plan", tmp_path / "merge.yml", "--align", "--json", ranks=2).stdout)
    assert found["schema"] == "moeweld.alignment/1"
    for entry in found["alignments"]:
        assert [orders[entry["layer"]][e] for e in entry["experts"]] == [0, 1, 2, 3]
        assert entry["router"]["after"] > 0.9
    lines = run("plan", tmp_path / "merge.yml", "--align").stdout.splitlines()
    first = next(line.split() for line in lines if line.split() and line.split()[0] == "0")
    assert first[1] == str(sum(o != e for e, o in enumerate(found["alignments"][0]["experts"]))) and first[4] == "->"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merge.yml"]


@pytest.mark.parametrize("family", ["mixtral", "granitemoe"])
def test_similarity_is_the_cosine_of_experts(models, tmp_path, family):
    a, b, _, _, _ = models(family)
    found = json.loads(run("similarity", a, b, "--json", "--svg", tmp_path / "map.svg", ranks=2).stdout)
    svg = (tmp_path / "map.svg").read_text()
    assert found["models"] == [str(a), str(b)] and svg.startswith("<svg") and svg.count("<image") == 2 * len(found["layers"])
    for layer in found["layers"]:
        x, y = (experts_of(model, layer["layer"]) for model in (a, b))
        for name in ("weights", "router"):
            expected = torch.nn.functional.normalize(x[name], dim=1) @ torch.nn.functional.normalize(y[name], dim=1).T
            assert torch.allclose(torch.tensor(layer[name], dtype=torch.float64), expected, atol=1e-5)
        assert not layer["sketched"]
    alone = json.loads(run("similarity", a, "--json").stdout)
    assert all(abs(layer["weights"][e][e] - 1) < 1e-6 for layer in alone["layers"] for e in range(4))
    text = run("similarity", a, b).stdout
    assert f"{found['layers'][0]['weights'][1][2]:.4f}" in text and "layer 0, weights: mean" in text


def test_similarity_needs_experts(workshop):
    result = run("similarity", workshop.model("llama", seed=1), ok=False)
    assert result.returncode == 3 and "have none" in result.stderr


def test_any_number_of_ranks_gives_the_same_bytes(models, tmp_path):
    a, _, shuffled, _, expected = models("granitemoeshared")
    assert same(merge(tmp_path, config(a, shuffled, align=True), ranks=3, name="ranks"), expected)
