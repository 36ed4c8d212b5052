"""Every family that dense models are assembled into, with every gate mode, read by transformers 5 and 4; recipes; what equal experts compute."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from conftest import load5, logits4_of_all, logits5, merge, run, tensors

GATES = ["random", "uniform_random", "orthogonal", "cheap_embed", "hidden", "hidden_avg", "router_input"]
IDS = [[[3, 4], [5, 6, 7]], [[10]], [[20, 21]], [[30, 31, 32]]]
SHARED_IDS = [[[40, 41]], [[50], [51, 52]]]

# name: (dense family, shared experts, whether they have prompts, keys of the configuration)
OUTPUTS = {
    "mixtral-of-llama": ("llama", 0, False, {}),
    "mixtral-of-mistral": ("mistral", 0, False, {}),
    "qwen3_moe": ("qwen3", 0, False, {}),
    "granitemoeshared": ("llama", 2, False, {}),
    "qwen2_moe-of-qwen2": ("qwen2", 1, True, {}),
    "qwen2_moe-of-llama": ("llama", 2, True, {}),
    "qwen2_moe-untrained": ("qwen2", 2, False, {}),
}
MODEL_TYPES = {"mixtral-of-llama": "mixtral", "mixtral-of-mistral": "mixtral", "qwen3_moe": "qwen3_moe", "granitemoeshared": "granitemoeshared",
               "qwen2_moe-of-qwen2": "qwen2_moe", "qwen2_moe-of-llama": "qwen2_moe", "qwen2_moe-untrained": "qwen2_moe"}
GATED = {"qwen2_moe-of-qwen2", "qwen2_moe-of-llama", "qwen2_moe-untrained"}


def dense(workshop, family, seed, **more):
    """Biases and norms that do something: transformers makes zeros and ones."""
    where = Path(workshop.model(family, seed=seed, **more))
    mark = where / "varied"
    if not mark.exists():
        from safetensors.torch import load_file, save_file
        generator = torch.Generator().manual_seed(seed)
        values = load_file(where / "model.safetensors")
        for name in sorted(values):
            if name.endswith("bias") or "norm" in name:
                noise = 0.1 * torch.randn(values[name].shape, generator=generator)
                values[name] = (values[name].float() + noise).to(values[name].dtype)
        save_file(values, where / "model.safetensors", metadata={"format": "pt"})
        mark.touch()
    return str(where)


def assembly(workshop, name, gate="random", experts=None, num=4, shared=None, **more):
    family, num_shared, prompts, keys = OUTPUTS[name]
    models = [dense(workshop, family, seed) for seed in (1, 2, 3, 4)]
    experts = experts or [{"source_model": model, "positive_token_ids": ids} for model, ids in zip(models, IDS)]
    shared = shared if shared is not None else [{"source_model": models[1 + i]} for i in range(num_shared)]
    if prompts:
        shared = [{**expert, "positive_token_ids": ids} for expert, ids in zip(shared, SHARED_IDS)]
    config = {"base_model": models[0], "gate_mode": gate, "experts_per_token": 2, **keys, "experts": experts[:num], **more}
    if shared:
        config["shared_experts"] = shared
    return yaml.dump(config)


def gates_of(name):
    return ["random"] if name == "qwen2_moe-untrained" else GATES


@pytest.fixture(scope="module")
def for_transformers4():
    """What the other tests leave for one process of transformers 4, whose start takes longer than the models: name: (directory, logits)."""
    return {}


@pytest.fixture(scope="module")
def assembled(workshop, tmp_path_factory):
    """Each family with each gate mode, assembled once."""
    root = tmp_path_factory.mktemp("assembled")
    return {(name, gate): merge(root, assembly(workshop, name, gate), name=f"{name}-{gate}") for name in OUTPUTS for gate in gates_of(name)}


def test_every_family_and_gate_loads(assembled, for_transformers4):
    for key, directory in assembled.items():
        assert json.loads((directory / "config.json").read_text())["model_type"] == MODEL_TYPES[key[0]]
        for_transformers4[key] = directory, logits5(directory)


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_fused_layout_is_the_same_model(workshop, tmp_path, assembled, name):
    fused = merge(tmp_path, assembly(workshop, name), "--layout", "fused")
    assert torch.equal(logits5(fused), logits5(assembled[name, "random"]))


PEER = """
import sys, yaml
from mergekit.moe.config import MoEMergeConfig
from mergekit.options import MergeOptions
from mergekit.scripts.moe import build
for config, out in zip(sys.argv[1::2], sys.argv[2::2]):
    with open(config) as file:
        build(MoEMergeConfig.model_validate(yaml.safe_load(file)), out, MergeOptions(copy_tokenizer=False, quiet=True), device="cpu")
"""


def tokenizer_in(directory):
    from test_families import tiny_tokenizer
    if not (Path(directory) / "tokenizer.json").exists():
        tiny_tokenizer(directory)


def test_with_the_same_router_greedy_output_is_that_of_mergekits_assembly(workshop, tmp_path, assembled):
    # mergekit-moe takes exactly one shared expert, with prompts unless the gate is random.
    compared = {"mixtral-of-llama": 0, "mixtral-of-mistral": 0, "qwen3_moe": 0, "qwen2_moe-of-qwen2": 1}
    arguments = []
    for name in compared:
        config = yaml.safe_load(assembly(workshop, name))
        tokenizer_in(config["base_model"])
        for expert in config["experts"] + config.get("shared_experts", []):
            expert.pop("positive_token_ids", None)
        (tmp_path / f"{name}.yml").write_text(yaml.dump(config))
        arguments += [tmp_path / f"{name}.yml", tmp_path / name]
    result = subprocess.run([sys.executable, "-c", PEER, *map(str, arguments)], capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr[-3000:]
    prompt = torch.tensor([[1, 5, 9, 100, 33, 7]])
    for name in compared:
        ours, theirs = load5(assembled[name, "random"]), load5(tmp_path / name)
        routers = {key: value for key, value in ours.state_dict().items() if key.endswith(("mlp.gate.weight", "shared_expert_gate.weight"))}
        assert len(routers) >= 4
        incompatible = theirs.load_state_dict(routers, strict=False)
        assert not incompatible.unexpected_keys
        with torch.no_grad():
            assert torch.allclose(ours(prompt).logits, theirs(prompt).logits, atol=1e-5, rtol=1e-4), name
        generate = lambda model: model.generate(prompt, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert torch.equal(generate(ours), generate(theirs)), name


def equal_experts(workshop, name, **more):
    """All experts are the base; the shared ones add nothing."""
    family, num_shared = OUTPUTS[name][:2]
    base = more.pop("base", None) or dense(workshop, family, 1, dtype=torch.float32)
    experts = [{"source_model": base}] * 4
    shared = [{"source_model": base, "residual_scale": 0}] * num_shared
    text = assembly(workshop, name, experts=experts, shared=shared, **{"base_model": base, **more})
    return base, family, text


def test_equal_experts_compute_what_the_base_does(workshop, tmp_path, for_transformers4):
    for name in OUTPUTS:
        base, family, text = equal_experts(workshop, name)
        out = merge(tmp_path, text, name=name)
        expected = logits5(base, family)
        assert torch.allclose(logits5(out), expected, atol=1e-5, rtol=1e-4), name
        for_transformers4["equal", name] = out, expected


def test_a_scaled_rope_gives_the_logits_of_the_base(workshop, tmp_path, for_transformers4):
    """A base like deepseek-coder's: linear scaling 4, theta 100000."""
    rope = dict(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0})
    ids = tuple(range(3, 203))
    for name in ("mixtral-of-llama", "granitemoeshared", "qwen2_moe-of-llama", "qwen3_moe", "qwen2_moe-of-qwen2"):
        base = dense(workshop, OUTPUTS[name][0], 1, dtype=torch.float32, **rope)
        plain = dense(workshop, OUTPUTS[name][0], 1, dtype=torch.float32)
        _, family, text = equal_experts(workshop, name, base=base)
        out = merge(tmp_path, text, name=name)
        assert torch.allclose(logits5(out, ids=ids), logits5(base, family, ids=ids), atol=1e-5, rtol=1e-4), name
        # That the scaling matters here: without it the base says something else.
        assert not torch.allclose(logits5(plain, family, ids=ids), logits5(base, family, ids=ids), atol=1e-4, rtol=1e-3), name
        for_transformers4["rope", name] = out, logits5(base, family)
        config = json.loads((out / "config.json").read_text())
        assert config["rope_theta"] == 100000 and config["rope_scaling"]["factor"] == 4, config
    base = dense(workshop, "llama", 1, dtype=torch.float32, **rope)
    for choice, theta in (("fold_theta", 400000.0), ("ntk", 100000.0 * 4 ** (16 / 14))):
        out = merge(tmp_path, equal_experts(workshop, "mixtral-of-llama", base=base, rope=choice)[2], name=choice)
        config = json.loads((out / "config.json").read_text())
        assert config.get("rope_scaling") is None and abs(config["rope_theta"] / theta - 1) < 1e-9, config
        logits5(out)


def test_shared_experts_add_up(workshop, tmp_path):
    """With silent routed experts the FFN is that of all shared experts side by side, of unlike widths too."""
    base = dense(workshop, "llama", 1, dtype=torch.float32)
    wide = dense(workshop, "llama", 2, dtype=torch.float32, intermediate_size=192)
    text = yaml.dump({"base_model": base, "gate_mode": "random", "experts": [{"source_model": base, "residual_scale": 0}] * 2,
                      "shared_experts": [{"source_model": base}, {"source_model": wide}]})
    out = merge(tmp_path, text)
    a, b = tensors(base), tensors(wide)
    both = dict(a)
    for layer in range(4):
        prefix = f"model.layers.{layer}.mlp."
        for matrix in ("gate_proj", "up_proj"):
            both[f"{prefix}{matrix}.weight"] = torch.cat([a[f"{prefix}{matrix}.weight"], b[f"{prefix}{matrix}.weight"]])
        both[f"{prefix}down_proj.weight"] = torch.cat([a[f"{prefix}down_proj.weight"], b[f"{prefix}down_proj.weight"]], dim=1)
    import transformers
    from conftest import make_config
    reference = transformers.AutoModelForCausalLM.from_config(make_config("llama", intermediate_size=128 + 192)).float().eval()
    reference.load_state_dict(both)
    with torch.no_grad():
        expected = reference(torch.tensor([[1, 5, 9, 100, 33, 7]])).logits
    assert torch.allclose(logits5(out), expected, atol=1e-5, rtol=1e-4)


def test_a_gated_shared_expert_has_the_mean_of_its_prompts_as_gate(workshop, tmp_path, assembled):
    e = tensors(dense(workshop, "llama", 1))["model.embed_tokens.weight"].double()
    unit = lambda v: v / v.norm()
    vectors = [unit(sum(e[i] for prompt in ids for i in prompt)) for ids in SHARED_IDS]
    out = tensors(assembled["qwen2_moe-of-llama", "cheap_embed"])
    for layer in range(4):
        gate = out[f"model.layers.{layer}.mlp.shared_expert_gate.weight"].double()
        assert gate.shape == (1, 64)
        assert torch.allclose(gate[0], unit(vectors[0] + vectors[1]), atol=2e-3)  # bfloat16


@pytest.mark.parametrize("name,layers,sparse", [("qwen3_moe", [1, 3], {1, 3}), ("qwen3_moe", {"every": 2, "first": 1}, {1, 3}),
                                                ("qwen2_moe-of-qwen2", [0, 3], {0, 3})])
def test_other_layers_keep_the_ffn_of_the_base(workshop, tmp_path, for_transformers4, name, layers, sparse):
    base, family, text = equal_experts(workshop, name, moe_layers=layers)
    out = merge(tmp_path, text)
    assert torch.allclose(logits5(out), logits5(base, family), atol=1e-5, rtol=1e-4)
    for_transformers4["layers", name, str(layers)] = out, logits5(base, family)
    names = tensors(out)
    assert {int(n.split(".")[2]) for n in names if n.endswith("mlp.gate.weight")} == sparse
    assert {int(n.split(".")[2]) for n in names if n.endswith("mlp.gate_proj.weight")} == {0, 1, 2, 3} - sparse


RECIPES = {
    "sparse_upcycle": {"recipe": "sparse_upcycle", "copies": 4},
    "fine_grained": {"recipe": "fine_grained", "copies": 3, "shards": 4, "experts_per_token": 4},
    "fine_grained of two copies": {"recipe": "fine_grained", "copies": 4, "shards": 2, "experts_per_token": 4},
    "drop_upcycle of nothing": {"recipe": "drop_upcycle", "copies": 2, "ratio": 0},
}


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_recipes_that_promise_the_dense_function_keep_it(workshop, tmp_path, family):
    base = dense(workshop, family, 1, dtype=torch.float32)
    expected = logits5(base, family)
    for number, (name, keys) in enumerate(RECIPES.items()):
        out = merge(tmp_path, yaml.dump({"base_model": base, **keys}), name=f"recipe-{number}", ranks=2)
        assert torch.allclose(logits5(out), expected, atol=1e-5, rtol=1e-4), name


def test_drop_upcycling_redraws_whole_neurons_from_what_they_replace(workshop, tmp_path):
    base = dense(workshop, "llama", 1, dtype=torch.float32, intermediate_size=1024, num_hidden_layers=1)
    out = tensors(merge(tmp_path, yaml.dump({"base_model": base, "recipe": "drop_upcycle", "copies": 2, "ratio": 0.25})))
    own = tensors(base)
    changed_of = []
    for expert in range(2):
        changes = []
        for matrix, dim, source in (("w1", 1, "gate_proj"), ("w3", 1, "up_proj"), ("w2", 0, "down_proj")):
            value = out[f"model.layers.0.block_sparse_moe.experts.{expert}.{matrix}.weight"]
            dense_value = own[f"model.layers.0.mlp.{source}.weight"]
            changes.append((value != dense_value).any(dim=dim))
            new = value[changes[-1]] if dim == 1 else value[:, changes[-1]]
            old = dense_value[changes[-1]] if dim == 1 else dense_value[:, changes[-1]]
            assert abs(new.std() / old.std() - 1) < 0.03 and abs(new.mean() - old.mean()) < 0.05 * old.std()
        assert changes[0].sum() == 256 and torch.equal(changes[0], changes[1]) and torch.equal(changes[0], changes[2])
        changed_of.append(changes[0])
    assert not torch.equal(*changed_of)


def test_btx_averages_everything_but_the_experts_ffn(workshop, tmp_path):
    models = [dense(workshop, "llama", seed, dtype=torch.float32) for seed in (2, 3)]
    text = yaml.dump({"base_model": dense(workshop, "llama", 1, dtype=torch.float32), "recipe": "btx",
                      "experts": [{"source_model": model} for model in models]})
    out = merge(tmp_path, text)
    a, b, c = tensors(models[0]), tensors(models[1]), tensors(out)
    for name in a:
        if ".mlp." not in name:
            assert torch.equal(c[name], ((a[name].double() + b[name].double()) / 2).float()), name
    assert torch.equal(c["model.layers.2.block_sparse_moe.experts.1.w2.weight"], b["model.layers.2.mlp.down_proj.weight"])
    logits5(out)


def test_noise_and_scale(workshop, tmp_path):
    models = [dense(workshop, "llama", seed, dtype=torch.float32) for seed in (1, 2)]
    text = yaml.dump({"base_model": models[0], "gate_mode": "random", "experts": [
        {"source_model": models[0], "noise_scale": 0.25, "residual_scale": 3.0}, {"source_model": models[1], "residual_scale": 0.5}]})
    out, a, b = tensors(merge(tmp_path, text)), tensors(models[0]), tensors(models[1])
    noises = []
    for matrix, source, scale in (("w1", "gate_proj", 1), ("w3", "up_proj", 1), ("w2", "down_proj", 3)):
        for layer in range(4):
            value = out[f"model.layers.{layer}.block_sparse_moe.experts.0.{matrix}.weight"]
            noises.append((value / scale - a[f"model.layers.{layer}.mlp.{source}.weight"]).flatten())
    noise = torch.cat(noises)
    assert abs(noise.std() / 0.25 - 1) < 0.01 and abs(noise.mean()) < 0.005
    assert abs(torch.corrcoef(torch.stack(noises)) - torch.eye(12)).max() < 0.06  # each matrix has its own
    assert torch.equal(out["model.layers.1.block_sparse_moe.experts.1.w2.weight"], b["model.layers.1.mlp.down_proj.weight"] * 0.5)
    assert torch.equal(out["model.layers.1.block_sparse_moe.experts.1.w1.weight"], b["model.layers.1.mlp.gate_proj.weight"])


def test_sources_of_several_types(workshop, tmp_path):
    models = [dense(workshop, "qwen3", seed, dtype=dtype) for seed, dtype in ((1, torch.bfloat16), (2, torch.float16), (3, torch.float32))]
    text = yaml.dump({"base_model": models[0], "gate_mode": "random", "experts": [{"source_model": model} for model in models[1:]]})
    out = merge(tmp_path, text)
    values = tensors(out)
    assert {value.dtype for value in values.values()} == {torch.bfloat16}
    for expert in (0, 1):
        source = tensors(models[1 + expert])["model.layers.0.mlp.up_proj.weight"]
        assert torch.equal(values[f"model.layers.0.mlp.experts.{expert}.up_proj.weight"], source.bfloat16())
    logits5(out)


def test_shared_experts_and_recipes_have_the_same_bytes_on_any_ranks_and_threads(workshop, tmp_path):
    configs = {"granite": assembly(workshop, "granitemoeshared", experts=[
                   {"source_model": dense(workshop, "llama", 1), "noise_scale": 0.1}, {"source_model": dense(workshop, "llama", 2)}]),
               "fine": yaml.dump({"base_model": dense(workshop, "llama", 1), "recipe": "fine_grained", "copies": 2, "shards": 3 - 1}),
               "drop": yaml.dump({"base_model": dense(workshop, "qwen3", 1), "recipe": "drop_upcycle", "copies": 2})}
    for name, text in configs.items():
        one = merge(tmp_path, text, "--threads", "1", name=f"{name}-1")
        many = merge(tmp_path, text, "--threads", "2", "--memory-limit", "160MiB", ranks=3, name=f"{name}-3")
        assert {k: v.tolist() for k, v in tensors(one).items()} == {k: v.tolist() for k, v in tensors(many).items()}, name


@pytest.mark.parametrize("gate", ["cheap_embed", "hidden"])
def test_prompts_are_the_ids_that_the_bases_tokenizer_gives(workshop, tmp_path, gate):
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    base, other = dense(workshop, "llama", 11), dense(workshop, "llama", 12)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = ["Once upon a time there was a dragon.", "def main():\n    print('dragon')", "1 + 1 = 2, caf\u00e9"]
    tokenizer.train_from_iterator(texts * 4, trainers.BpeTrainer(vocab_size=310, special_tokens=["<s>", "</s>"],
                                                                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(base)
    ids = [fast("<s>" + text, add_special_tokens=False)["input_ids"] for text in texts]
    assert all(row[0] == 0 and len(row) > 3 for row in ids)
    results = []
    for name, form, values in (("prompts", "prompts", texts), ("ids", "token_ids", ids)):
        experts = [{"source_model": base, f"positive_{form}": values[:1], f"negative_{form}": values[1:2]},
                   {"source_model": other, f"positive_{form}": values[1:]}]
        results.append(tensors(merge(tmp_path, yaml.dump({"base_model": base, "gate_mode": gate, "experts": experts}), name=name)))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_transformers_4_says_the_same_of_all_of_them(for_transformers4):
    if not for_transformers4:
        pytest.skip("the tests that leave something here did not run")
    directories = [directory for directory, _ in for_transformers4.values()]
    for name, old, (_, expected) in zip(for_transformers4, logits4_of_all(directories), for_transformers4.values()):
        assert torch.allclose(old, expected, atol=1e-5, rtol=1e-4), name
