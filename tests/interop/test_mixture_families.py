"""Mixtures of every family: merged with each other in any layout, loaded again by transformers 5 and 4.57."""

import json

import pytest
import torch
import transformers
import yaml

from conftest import logits5, logits4_of_all, merge, run, tensors
from mixture_families import ALWAYS_FUSED, CONFIGS, NOT_IN_TRANSFORMERS4, add_mtp_layer, make_mixture


def linear(*models, **more):
    return yaml.dump({"merge_method": "linear", "models": [{"model": str(m), "parameters": {"weight": 1.0}} for m in models], **more})


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """family → (inputs, merge of the two); made on demand, and asked of transformers 4 together at the end."""
    root = tmp_path_factory.mktemp("mixtures")
    known = {}

    def get(family):
        if family not in known:
            a = make_mixture(root, family, 1)
            b = make_mixture(root, family, 2, base=a)
            known[family] = (a, b, merge(root, linear(a, b), name=f"{family}-merged"))
        return known[family]

    return get


@pytest.mark.parametrize("family", CONFIGS)
def test_a_mixture_merges_per_expert_and_loads(merged, family):
    a, b, out = merged(family)
    described = json.loads(run("inspect", a, "--json").stdout)
    assert described["family"] == family.removesuffix("_lite") and described["experts"] == 4 and described["tensors"] == len(tensors(a))
    x, y, ours = tensors(a), tensors(b), tensors(out)
    assert set(ours) == set(x)
    for name, value in ours.items():
        correction = name.endswith("e_score_correction_bias")
        assert value.dtype == (torch.float32 if correction else torch.bfloat16), name
        assert torch.equal(value, ((x[name].double() + y[name].double()) / 2).to(value.dtype)), name
    logits5(out)


@pytest.mark.parametrize("family", [family for family in CONFIGS if family not in ALWAYS_FUSED])
def test_layouts_mix_and_give_the_same_model(merged, tmp_path, family):
    a, b, out = merged(family)
    fused = merge(tmp_path, linear(a, b), "--layout", "fused", name="fused")
    names = set(tensors(fused))
    assert not any(".experts.0." in name for name in names) and any(name.endswith("mlp.experts.gate_up_proj") for name in names)
    assert torch.equal(logits5(fused), logits5(out))
    fused_a = merge(tmp_path, linear(a), "--layout", "fused", name="fused-a")
    mixed = tensors(merge(tmp_path, linear(fused_a, b), name="mixed"))
    expected = tensors(out)
    assert set(mixed) == set(expected) and all(torch.equal(mixed[name], expected[name]) for name in expected)


def test_a_layout_has_no_effect_on_granite(merged, tmp_path):
    a, b, out = merged("granitemoeshared")
    fused = merge(tmp_path, linear(a, b), "--layout", "fused", name="fused")
    expected = tensors(out)
    assert all(torch.equal(value, expected[name]) for name, value in tensors(fused).items())


def test_transformers_4_reads_every_merge_alike(merged):
    families = [family for family in CONFIGS if family not in NOT_IN_TRANSFORMERS4]
    outputs = [merged(family)[2] for family in families]
    for family, output, logits in zip(families, outputs, logits4_of_all(outputs)):
        assert torch.allclose(logits, logits5(output), atol=2e-4, rtol=2e-3), family


@pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe"])
def test_layers_of_multi_token_prediction_merge_too(tmp_path, family):
    inputs = [make_mixture(tmp_path, family, seed, num_nextn_predict_layers=1) for seed in (1, 2)]
    for seed, directory in enumerate(inputs):
        add_mtp_layer(directory, seed)
    out = merge(tmp_path, linear(*inputs))
    ours, (x, y) = tensors(out), map(tensors, inputs)
    assert set(ours) == set(x) and "model.layers.3.eh_proj.weight" in ours
    for name, value in ours.items():
        assert torch.equal(value, ((x[name].double() + y[name].double()) / 2).to(value.dtype)), name
    # Its readers know such layers by the numbers of the released models only.
    info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)[1]
    assert not info["missing_keys"] and all(name.startswith("model.layers.3.") for name in info["unexpected_keys"])


@pytest.mark.parametrize("mode, taken", [("base", 0), ("drop", None)])
def test_layers_of_multi_token_prediction_are_the_bases_or_dropped(tmp_path, mode, taken):
    inputs = [make_mixture(tmp_path, "deepseek_v3", seed, num_nextn_predict_layers=1) for seed in (1, 2)]
    for seed, directory in enumerate(inputs):
        add_mtp_layer(directory, seed)
    out = merge(tmp_path, linear(*inputs, mtp=mode))
    ours, x = tensors(out), tensors(inputs[0])
    written = {name for name in ours if name.startswith("model.layers.3.")}
    assert json.loads((out / "config.json").read_text())["num_nextn_predict_layers"] == (1 if mode == "base" else 0)
    if mode == "base":
        assert set(ours) == set(x) and written and all(torch.equal(ours[name], x[name]) for name in written)
    else:
        assert not written
        logits5(out)


@pytest.mark.parametrize("family", CONFIGS)
def test_slerp_and_ties_are_the_linear_merge_where_they_must_be(merged, tmp_path, family):
    """By definition: slerp at 0 and 1 gives back a model; ties of one fine-tune with density 1 and weight 1 is that fine-tune."""
    a, b, _ = merged(family)
    fused = a if family in ALWAYS_FUSED else merge(tmp_path, linear(a), "--layout", "fused", name="fused-a")
    slerp = lambda t: yaml.dump({"merge_method": "slerp", "base_model": str(fused), "models": [{"model": str(fused)}, {"model": str(b)}],
                                 "parameters": {"t": t}})
    ties = yaml.dump({"merge_method": "ties", "base_model": str(fused), "models": [{"model": str(b), "parameters": {"weight": 1.0, "density": 1.0}}]})
    x, y = tensors(a), tensors(b)
    for text, expected in ((slerp(0.0), x), (slerp(1.0), y), (ties, y)):
        ours = tensors(merge(tmp_path, text, name=f"out-{len(list(tmp_path.iterdir()))}"))
        assert set(ours) == set(expected)
        for name, value in ours.items():
            # base + (model - base) is rounded once in float32.
            close = torch.allclose(value.float(), expected[name].float(), rtol=2**-7, atol=1e-6)
            correction = name.endswith("e_score_correction_bias")
            assert value.dtype == (torch.float32 if correction else expected[name].dtype) and close, name
