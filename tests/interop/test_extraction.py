"""Mixtures of every family taken apart: every expert's model, averages and merges over them, and what comes back from an assembly."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from conftest import Workshop, logits4_of_all, logits5, merge, run, tensors
from mixture_families import ALWAYS_FUSED, make_mixture

# Qwen2-MoE and Qwen3-MoE have dense layers here that are wider than an expert; DeepSeek's is narrower than an expert and the shared one.
FAMILIES = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "granitemoeshared", "deepseek"]
NUM_EXPERTS = 4
NUM_LAYERS = 3
FLAGS = {"qwen2_moe": ("--gated-shared", "drop")}


def make_deepseek(root):
    """Only remote code has it in transformers, so a DeepSeek v1 is assembled: one dense layer, a shared expert, and a merge of its own."""
    dense = [Workshop(root).model("llama", seed=seed, num_hidden_layers=NUM_LAYERS) for seed in range(NUM_EXPERTS + 1)]
    text = yaml.dump({"base_model": dense[0], "architecture": "deepseek moe", "gate_mode": "random", "moe_layers": {"every": 1, "first": 1},
                      "experts": [{"source_model": model} for model in dense[:NUM_EXPERTS]], "shared_experts": [{"source_model": dense[-1]}]})
    return merge(root, text, name="deepseek")


@pytest.fixture(scope="module")
def taken_apart(tmp_path_factory):
    """family → (mixture, directory of every expert's model)"""
    root = tmp_path_factory.mktemp("extraction")
    known = {}

    def get(family):
        if family not in known:
            mixture = make_deepseek(root) if family == "deepseek" else make_mixture(root, family, 3)
            run("extract", mixture, root / f"{family}-all", "--all", "-q", *FLAGS.get(family, ()))
            known[family] = (mixture, root / f"{family}-all")
        return known[family]

    return get


def ffn_of(inside, family, layer, expert):
    """gate, up, down of the dense model by definition: expert and shared expert beside each other, zeros up to the widest layer."""
    p = f"model.layers.{layer}."
    if f"{p}mlp.gate_proj.weight" in inside:
        parts = [[inside[f"{p}mlp.{m}_proj.weight"] for m in ("gate", "up", "down")]]
    elif family == "mixtral":
        parts = [[inside[f"{p}block_sparse_moe.experts.{expert}.{w}.weight"] for w in ("w1", "w3", "w2")]]
    elif family.startswith("granite"):
        gate, up = inside[f"{p}block_sparse_moe.input_linear.weight"][expert].chunk(2)
        parts = [[gate, up, inside[f"{p}block_sparse_moe.output_linear.weight"][expert]]]
        if f"{p}shared_mlp.input_linear.weight" in inside:
            gate, up = inside[f"{p}shared_mlp.input_linear.weight"].chunk(2)
            parts.append([gate, up, inside[f"{p}shared_mlp.output_linear.weight"]])
    else:
        parts = [[inside[f"{p}mlp.experts.{expert}.{m}_proj.weight"] for m in ("gate", "up", "down")]]
        if f"{p}mlp.shared_experts.gate_proj.weight" in inside:
            parts.append([inside[f"{p}mlp.shared_experts.{m}_proj.weight"] for m in ("gate", "up", "down")])
    return [torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts], dim=1)]


def expected_ffns(inside, family, expert):
    """name → matrix of all layers, padded to the widest."""
    layers = [ffn_of(inside, family, layer, expert) for layer in range(NUM_LAYERS)]
    width = max(gate.shape[0] for gate, _, _ in layers)
    result = {}
    for layer, (gate, up, down) in enumerate(layers):
        prefix = f"model.layers.{layer}.mlp." + ("experts.0." if family == "olmoe" else "")
        missing = width - gate.shape[0]
        pad = torch.nn.functional.pad
        result[f"{prefix}gate_proj.weight"] = pad(gate, (0, 0, 0, missing))
        result[f"{prefix}up_proj.weight"] = pad(up, (0, 0, 0, missing))
        result[f"{prefix}down_proj.weight"] = pad(down, (0, missing))
    return result


@pytest.mark.parametrize("family", FAMILIES)
def test_every_experts_model_is_the_mixture_with_that_ffn(taken_apart, family):
    mixture, all_models = taken_apart(family)
    inside = tensors(mixture)
    assert sorted(path.name for path in all_models.iterdir()) == [f"expert-{e}" for e in range(NUM_EXPERTS)]
    run("verify", all_models, "-q")
    for expert in range(NUM_EXPERTS):
        ours = tensors(all_models / f"expert-{expert}")
        expected = expected_ffns(inside, family, expert)
        for name, value in ours.items():
            if family == "olmoe" and name.endswith("mlp.gate.weight"):
                assert torch.equal(value, inside[name][expert : expert + 1]), name
            else:
                assert torch.equal(value, expected[name] if name in expected else inside[name]), name
        assert set(expected) <= set(ours)
        lost = {name for name in inside if name not in ours}
        assert all("expert" in name or "gate.weight" in name or "block_sparse_moe" in name or "shared_mlp" in name for name in lost), lost
        assert "not a usable model by itself" in (all_models / f"expert-{expert}" / "README.md").read_text()
        logits5(all_models / f"expert-{expert}")


def test_transformers_4_reads_every_experts_model_alike(taken_apart):
    outputs = [taken_apart(family)[1] / "expert-1" for family in FAMILIES]
    for family, output, logits in zip(FAMILIES, outputs, logits4_of_all(outputs)):
        assert torch.allclose(logits, logits5(output), atol=2e-4, rtol=2e-3), family


@pytest.mark.parametrize("family", FAMILIES)
def test_one_expert_is_what_all_gives_in_either_layout_on_any_number_of_ranks(taken_apart, tmp_path, family):
    mixture, all_models = taken_apart(family)
    flags = ("-q", *FLAGS.get(family, ()))
    run("extract", mixture, tmp_path / "one", "--expert", 2, *flags)
    run("extract", mixture, tmp_path / "ranks", "--all", *flags, ranks=3)
    expected = tensors(all_models / "expert-2")
    outputs = [tmp_path / "one", tmp_path / "ranks" / "expert-2"]
    if family not in ALWAYS_FUSED:
        text = yaml.dump({"merge_method": "passthrough", "models": [{"model": str(mixture)}]})
        fused = merge(tmp_path, text, "--layout", "fused", name="fused")
        run("extract", fused, tmp_path / "from-fused", "--all", *flags)
        outputs.append(tmp_path / "from-fused" / "expert-2")
    for output in outputs:
        ours = tensors(output)
        assert set(ours) == set(expected) and all(torch.equal(value, expected[name]) for name, value in ours.items()), output
    for file in (all_models / "expert-3").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "ranks" / "expert-3" / file.name).read_bytes(), file.name
    per_layer = (3, 0, 1)
    run("extract", mixture, tmp_path / "layers", "--expert", "3,0,1", *flags)
    ours = tensors(tmp_path / "layers")
    for layer, expert in enumerate(per_layer):
        for name, value in expected_ffns(tensors(mixture), family, expert).items():
            assert f"layers.{layer}." not in name or torch.equal(ours[name], value), name


def router_weights(inside, layer):
    """Norms of the centred rows over their sum."""
    (name,) = [n for n in inside if n.startswith(f"model.layers.{layer}.") and n.endswith((".mlp.gate.weight", "_moe.gate.weight", ".router.layer.weight"))]
    rows = inside[name].double()
    norms = (rows - rows.mean(0)).norm(dim=1)
    return norms / norms.sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_averages_and_merges_over_experts(taken_apart, tmp_path, family):
    mixture, all_models = taken_apart(family)
    inside = tensors(mixture)
    flags = ("-q", *FLAGS.get(family, ()))
    of_experts = [expected_ffns(inside, family, expert) for expert in range(NUM_EXPERTS)]
    is_dense = lambda name: f"model.layers.{name.split('.')[2]}.mlp.gate_proj.weight" in inside

    def average(name, weights):
        if is_dense(name):
            return of_experts[0][name]
        total = sum(w * model[name].double() for w, model in zip(weights, of_experts))
        return (total / float(sum(weights))).to(of_experts[0][name].dtype)

    for arguments, weights in ((("--average",), lambda layer: [1.0] * 4), (("--average", "--weights", "1,2,0.5,0"), lambda layer: [1, 2, 0.5, 0]),
                               (("--router-weighted",), lambda layer: router_weights(inside, layer))):
        out = tmp_path / "-".join(arguments).replace(",", "")
        run("extract", mixture, out, *arguments, *flags)
        ours = tensors(out)
        for name in of_experts[0]:
            expected = average(name, weights(int(name.split(".")[2])) if not is_dense(name) else [1])
            # Sums in float32 and in float64 may round to neighbours.
            assert torch.allclose(ours[name].float(), expected.float(), rtol=2**-7, atol=1e-6), (arguments, name)
            assert (ours[name] == expected).float().mean() > 0.999, (arguments, name)
        logits5(out)

    # By definition a merge over the experts is the merge of the models that --all writes.
    base = all_models / "expert-1"
    models = [{"model": str(all_models / f"expert-{e}"), "parameters": {"weight": 0.5 + e, "density": 0.4}} for e in range(NUM_EXPERTS)]
    text = yaml.dump({"merge_method": "ties", "base_model": str(base), "models": models, "parameters": {"lambda": 0.7}})
    expected = tensors(merge(tmp_path, text, name="merged"))
    run("extract", mixture, tmp_path / "ties", "--merge", "ties", "--base", 1, "--parameter", "weight=0.5,1.5,2.5,3.5", "--parameter",
        "density=0.4", "--parameter", "lambda=0.7", *flags, ranks=2)
    ours = tensors(tmp_path / "ties")
    for name in of_experts[0]:
        assert torch.equal(ours[name], expected[name]), name


ROUND_TRIPS = {
    "mixtral": ("mistral", {}),
    "qwen3 moe": ("qwen3", {}),
    "qwen moe": ("qwen2", {"shared": True, "flags": ("--gated-shared", "drop")}),
    "deepseek moe": ("llama", {}),
}


def last_logits(directory):
    ids = directory.parent / "ids.txt"
    ids.write_text("[1, 5, 9, 100, 33, 7]\n")
    return json.loads(run("check", directory, "--token-ids", ids, "--json", "--last-logits").stdout)["last_logits"]


@pytest.mark.parametrize("architecture", ROUND_TRIPS)
def test_a_dense_model_comes_back_from_its_mixture(workshop, tmp_path, architecture):
    family, more = ROUND_TRIPS[architecture]
    models = [workshop.model(family, seed=seed) for seed in (1, 2, 3)]
    config = {"base_model": models[0], "architecture": architecture, "gate_mode": "random", "experts": [{"source_model": m} for m in models]}
    if more.get("shared"):
        config["shared_experts"] = [{"source_model": models[1]}]
    mixture = merge(tmp_path, yaml.dump(config), name="mixture")
    run("extract", mixture, tmp_path / "all", "--all", "-q", *more.get("flags", ()))
    back, base = tensors(tmp_path / "all" / "expert-0"), tensors(models[0])
    assert set(back) == set(base) and all(torch.equal(value, base[name]) for name, value in back.items())
    for expert, model in enumerate(models):
        source, ours = tensors(model), tensors(tmp_path / "all" / f"expert-{expert}")
        assert all(torch.equal(value, source[name]) for name, value in ours.items() if ".mlp." in name)
    assert last_logits(tmp_path / "all" / "expert-0") == last_logits(Path(models[0]))
    assert torch.equal(logits5(tmp_path / "all" / "expert-0"), logits5(models[0]))
