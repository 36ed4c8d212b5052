"""Block-scaled FP8 against float32 references in torch: DeepSeek-V3 with matrices that 128 does not divide."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from conftest import logits5, merge, run, tensors
from mixture_families import make_mixture
from shuffle_experts import shuffle_experts

SHAPES = dict(hidden_size=192, moe_intermediate_size=160, intermediate_size=320, q_lora_rank=130, kv_lora_rank=136)
QUANTIZATION = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}


def blocks_of(matrix):
    """[…, rows, columns] padded with zeros and seen as […, row blocks, 128, column blocks, 128]."""
    *lead, rows, columns = matrix.shape
    padded = torch.zeros(*lead, -(-rows // 128) * 128, -(-columns // 128) * 128)
    padded[..., :rows, :columns] = matrix
    return padded.reshape(*lead, padded.shape[-2] // 128, 128, padded.shape[-1] // 128, 128)


def quantised(matrix):
    """Codes and scales by the definition: largest magnitude of the block / 448, to nearest even."""
    x = matrix.float()
    blocks = blocks_of(x)
    scales = (blocks.abs().amax(dim=(-3, -1)) / 448).clamp(min=torch.finfo(torch.float32).tiny)
    codes = (blocks / scales[..., :, None, :, None]).to(torch.float8_e4m3fn)
    *_, rows, columns = x.shape
    return codes.float().reshape(*x.shape[:-2], blocks.shape[-4] * 128, -1)[..., :rows, :columns].to(torch.float8_e4m3fn).contiguous(), scales


def dequantised(codes, scales):
    rows, columns = codes.shape[-2:]
    return codes.float() * scales.repeat_interleave(128, -2)[..., :rows, :].repeat_interleave(128, -1)[..., :columns]


def is_projection(name):
    return ("proj" in name) and name.endswith(".weight")


def quantise_model(source: Path, target: Path, announce=True, fuse=False):
    shutil.copytree(source, target)
    result = {}
    for name, value in load_file(source / "model.safetensors").items():
        if not is_projection(name):
            result[name] = value.float() if name.endswith("correction_bias") else value
            continue
        result[name], result[name + "_scale_inv"] = quantised(value)
    save_file(result, target / "model.safetensors", metadata={"format": "pt"})
    if announce:
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**config, "quantization_config": QUANTIZATION}))
    return target


def values(directory):
    """Every tensor as float32, dequantised."""
    raw = tensors(directory)
    return {name: dequantised(value, raw[name + "_scale_inv"]) if name + "_scale_inv" in raw else value.float()
            for name, value in raw.items() if not name.endswith("_scale_inv")}


def config_of(method, *models, **more):
    return yaml.dump({"merge_method": method, "models": [{"model": str(m), "parameters": {"weight": 1.0}} if method == "linear" else {"model": str(m)}
                                                         for m in models], **more})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("fp8")
    a = make_mixture(root, "deepseek_v3", 1, **SHAPES)
    b = make_mixture(root, "deepseek_v3", 2, base=a, **SHAPES)
    return quantise_model(a, root / "a-fp8"), quantise_model(b, root / "b-fp8"), b


def expect_values(out, expected, dtype=torch.bfloat16):
    ours = tensors(out)
    assert set(ours) == set(expected)
    for name, value in ours.items():
        correction = name.endswith("e_score_correction_bias")
        assert value.dtype == (torch.float32 if correction else dtype), name
        assert torch.equal(value, expected[name].float().to(value.dtype)), name


def test_fp8_is_written_as_bf16_and_loads(models, tmp_path):
    a, _, _ = models
    out = merge(tmp_path, config_of("passthrough", a))
    expect_values(out, values(a))
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    logits5(out)
    described = json.loads(run("inspect", a, "--json").stdout)
    assert described["block_scaled_fp8"] == sum(name.endswith("_scale_inv") for name in tensors(a))


def test_fp8_and_bf16_merge_on_any_number_of_ranks(models, tmp_path):
    a, _, b = models
    x, y = values(a), values(b)
    out = merge(tmp_path, config_of("linear", a, b))
    expect_values(out, {name: (x[name].double() + y[name].double()) / 2 for name in x})
    logits5(out)
    again = merge(tmp_path, config_of("linear", a, b), "--memory-limit", "120MB", ranks=3, name="again")
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_scales_that_no_config_announces_and_other_layouts(models, tmp_path):
    """Fused experts: the scales are those of [gate; up], which 160 rows of gate cut within a block."""
    a, _, _ = models
    raw, result = values(a), {}
    experts = sorted(name for name in raw if ".mlp.experts." in name)
    for name in raw:
        if name not in experts:
            result[name] = raw[name].to(torch.bfloat16) if not name.endswith("correction_bias") else raw[name]
    for layer in sorted({name.split(".experts.")[0] for name in experts}):
        of = lambda e, m: raw[f"{layer}.experts.{e}.{m}_proj.weight"]
        gate_up = torch.stack([torch.cat([of(e, "gate"), of(e, "up")]) for e in range(4)])
        down = torch.stack([of(e, "down") for e in range(4)])
        for name, value in ((f"{layer}.experts.gate_up_proj", gate_up), (f"{layer}.experts.down_proj", down)):
            result[name], result[name + "_scale_inv"] = quantised(value)
    fused = tmp_path / "fused"
    shutil.copytree(a, fused)
    save_file(result, fused / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((fused / "config.json").read_text())
    del config["quantization_config"]
    (fused / "config.json").write_text(json.dumps(config))
    out = tensors(merge(tmp_path, config_of("passthrough", fused)))
    for layer in sorted({name.split(".experts.")[0] for name in experts}):
        for name in ("gate_up_proj", "down_proj"):
            full = dequantised(result[f"{layer}.experts.{name}"], result[f"{layer}.experts.{name}_scale_inv"])
            for e in range(4):
                parts = {"gate_proj": full[e, :160], "up_proj": full[e, 160:]} if name == "gate_up_proj" else {"down_proj": full[e]}
                for part, expected in parts.items():
                    assert torch.equal(out[f"{layer}.experts.{e}.{part}.weight"], expected.to(torch.bfloat16)), (layer, e, part)
    (tmp_path / "plan.yml").write_text(config_of("passthrough", fused))
    assert "no quantization_config" in run("plan", tmp_path / "plan.yml").stdout


def test_scales_that_are_missing_or_misshapen_are_all_named(models, tmp_path):
    a, _, _ = models
    broken = tmp_path / "broken"
    shutil.copytree(a, broken)
    raw = load_file(a / "model.safetensors")
    missing, misshapen = [name for name in raw if name.endswith("o_proj.weight_scale_inv")][:2]
    del raw[missing]
    raw[misshapen] = raw[misshapen][:1].contiguous()
    save_file(raw, broken / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "merge.yml").write_text(config_of("passthrough", broken))
    result = run("merge", tmp_path / "merge.yml", tmp_path / "out", ok=False)
    assert result.returncode == 3 and not (tmp_path / "out").exists()
    assert missing.removesuffix("_scale_inv") in result.stderr and "scales are missing" in result.stderr
    assert misshapen in result.stderr and "[1, 1]" in result.stderr and "[2, 1]" in result.stderr


def written_by_definition(directory, expected, quantised_names, kept):
    """The output's codes and scales are those of the float32 values; everything else is in the type that it had."""
    ours = tensors(directory)
    assert set(ours) == set(expected) | {name + "_scale_inv" for name in quantised_names}
    for name, value in expected.items():
        if name not in quantised_names:
            assert ours[name].dtype == kept[name].dtype and torch.equal(ours[name], value.float().to(kept[name].dtype)), name
            continue
        codes, scales = quantised(value.float())
        assert torch.equal(ours[name + "_scale_inv"], scales), name
        assert torch.equal(ours[name].view(torch.uint8), codes.view(torch.uint8)), name
        # Half a unit in the last place of the code, times the scale.
        magnitude = codes.float().abs()
        unit = torch.exp2(torch.floor(torch.log2(magnitude.clamp(min=2.0**-6))) - 3).double()
        rows, columns = codes.shape
        factor = scales.double().repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
        error = (value.double() - codes.double() * factor).abs()
        # The value and the quotient are rounded to float32.
        assert (error <= (unit / 2 + magnitude * 2.0**-22) * factor).all(), name


def test_fp8_is_requantised(models, tmp_path):
    a, _, b = models
    x, y, kept = values(a), values(b), tensors(a)
    out = merge(tmp_path, config_of("linear", a, b, out_dtype="fp8_block"))
    names = {name.removesuffix("_scale_inv") for name in kept if name.endswith("_scale_inv")}
    written_by_definition(out, {name: (x[name].double() + y[name].double()) / 2 for name in x}, names, kept)
    assert json.loads((out / "config.json").read_text())["quantization_config"] == QUANTIZATION
    # And it is an input again.
    again = merge(tmp_path, config_of("passthrough", out), name="again")
    expect_values(again, values(out))
    logits5(again)


def test_codes_and_scales_go_through_hdf5(models, tmp_path):
    a, _, b = models
    config = config_of("linear", a, b, out_dtype="fp8_block")
    expected = tensors(merge(tmp_path, config, name="plain"))
    h5 = merge(tmp_path, config, "--format", "hdf5", name="h5", ranks=2)
    run("convert", h5, tmp_path / "back", "-q")
    found = tensors(tmp_path / "back")
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name].view(torch.uint8), value.view(torch.uint8)), name


def test_what_is_passed_on_keeps_its_codes(models, tmp_path):
    a, _, _ = models
    out, source = tensors(merge(tmp_path, config_of("passthrough", a, out_dtype="fp8_block"))), tensors(a)
    assert set(out) == set(source)
    for name, value in source.items():
        assert out[name].dtype == value.dtype and torch.equal(out[name].view(torch.uint8), value.view(torch.uint8)), name


def large_model(root, seed, quantise):
    """Names that no table knows; matrices that ranks share, one of which does not fill whole words."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"first": (1500, 1100), "odd": (577, 1003), "second": (2111, 1400), "small": (130, 20)}
    result = {"norm.weight": torch.randn(1100, generator=generator)}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if quantise:
            result[f"{name}.weight"], result[f"{name}.weight_scale_inv"] = quantised(value)
        else:
            result[f"{name}.weight"] = value.to(torch.bfloat16)
    root.mkdir()
    save_file(result, root / "model.safetensors")
    (root / "config.json").write_text(json.dumps({"architectures": ["Nothing"], "num_hidden_layers": 0, **({"quantization_config": QUANTIZATION}
                                                                                                            if quantise else {})}))
    return root


@pytest.mark.parametrize("method", ["linear", "slerp", "ties"])
def test_the_same_bytes_on_any_number_of_ranks(tmp_path, method):
    one, two = large_model(tmp_path / "one", 1, True), large_model(tmp_path / "two", 2, False)
    config = {"merge_method": method, "out_dtype": "fp8_block", "models": [{"model": str(one), "parameters": {"weight": 1.0}}, {"model": str(two), "parameters": {"weight": 0.5}}]}
    if method != "linear":
        config["base_model"] = str(one)
        config["parameters"] = {"t": 0.3} if method == "slerp" else {"density": 0.5}
        config["models"] = [{"model": str(one)}, {"model": str(two)}] if method == "slerp" else config["models"][1:]
    config = yaml.dump(config)
    alone = merge(tmp_path, config, name="alone")
    for ranks, limit in ((2, "2GB"), (3, "160MB")):
        other = merge(tmp_path, config, "--memory-limit", limit, ranks=ranks, name=f"on{ranks}")
        assert (other / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes(), ranks
    if method == "linear":
        x, y, kept = values(one), values(two), tensors(one)
        names = {name.removesuffix("_scale_inv") for name in kept if name.endswith("_scale_inv")}
        written_by_definition(alone, {name: (x[name].double() * 1.0 + y[name].double() * 0.5) / 1.5 for name in x}, names, kept)


def test_nan_codes_are_reported(tmp_path):
    one = large_model(tmp_path / "one", 1, True)
    raw = load_file(one / "model.safetensors")
    raw["second.weight"].view(torch.uint8)[700, 33] = 0xFF
    save_file(raw, one / "model.safetensors")
    (tmp_path / "merge.yml").write_text(config_of("passthrough", one))
    result = run("merge", tmp_path / "merge.yml", tmp_path / "out", ranks=2)
    assert "'second.weight'" in result.stdout + result.stderr and "NaN" in result.stdout + result.stderr
    value = tensors(tmp_path / "out")["second.weight"]
    assert value.isnan().nonzero().tolist() == [[700, 33]]
    refused = run("merge", tmp_path / "merge.yml", tmp_path / "refused", "--check-finite", ok=False)
    assert refused.returncode == 3 and "second.weight" in refused.stderr


def test_fp8_needs_to_be_told_what_to_quantise(tmp_path):
    two = large_model(tmp_path / "two", 2, False)
    (tmp_path / "merge.yml").write_text(config_of("passthrough", two, out_dtype="fp8_block"))
    result = run("merge", tmp_path / "merge.yml", tmp_path / "out", ok=False)
    assert result.returncode != 0 and "no model holds block-scaled FP8" in " ".join(result.stderr.split())


def test_the_forward_pass_reads_fp8(tmp_path):
    """The bits of the dequantised float32 model."""
    source = make_mixture(tmp_path, "qwen3_moe", 3, hidden_size=192, moe_intermediate_size=160, intermediate_size=320)
    fp8 = quantise_model(source, tmp_path / "fp8")
    plain = merge(tmp_path, config_of("passthrough", fp8, out_dtype="float32"), name="plain")
    assert all(value.dtype == torch.float32 for value in tensors(plain).values())
    (tmp_path / "ids.txt").write_text(json.dumps([int(i) for i in torch.randint(0, 160, (150,), generator=torch.Generator().manual_seed(1))]))
    answers = [json.loads(run("check", model, "--token-ids", tmp_path / "ids.txt", "--json", "--last-logits", ranks=ranks).stdout)
               for model, ranks in ((plain, 1), (fp8, 1), (fp8, 2))]
    assert answers[0]["finite"] and answers[0]["last_logits"]
    for answer in answers[1:]:
        assert answer["last_logits"] == answers[0]["last_logits"] and answer["log_likelihood"] == answers[0]["log_likelihood"]


def test_mixtures_of_fp8_are_taken_apart_and_reduced(tmp_path):
    source = make_mixture(tmp_path, "qwen3_moe", 3, hidden_size=192, moe_intermediate_size=160, intermediate_size=160)
    fp8 = quantise_model(source, tmp_path / "fp8")
    full = values(fp8)
    run("extract", fp8, tmp_path / "one", "--expert", "1")
    one = tensors(tmp_path / "one")
    assert "model.layers.1.mlp.down_proj.weight" in one
    for name, value in one.items():
        expected = full[name] if name in full else full[name.replace(".mlp.", ".mlp.experts.1.")]
        assert value.dtype == torch.bfloat16 and torch.equal(value, expected.to(torch.bfloat16)), name
    run("extract", fp8, tmp_path / "mean", "--average")
    for name, value in tensors(tmp_path / "mean").items():
        assert value.dtype == torch.bfloat16, name
        if name not in full:
            mean = sum(full[name.replace(".mlp.", f".mlp.experts.{e}.")].double() for e in range(4)) / 4
            assert torch.allclose(value.double(), mean, rtol=2**-8, atol=1e-9), name
    run("reduce", fp8, tmp_path / "two", "--experts", "2", "--by", "prune")
    two = tensors(tmp_path / "two")
    assert not any(name.endswith("_scale_inv") for name in two) and all(value.dtype == torch.bfloat16 for value in two.values())
    assert torch.equal(two["model.layers.0.self_attn.q_proj.weight"], full["model.layers.0.self_attn.q_proj.weight"].to(torch.bfloat16))
    for directory in ("one", "mean", "two"):
        assert "quantization_config" not in json.loads((tmp_path / directory / "config.json").read_text())
        logits5(tmp_path / directory)


def plain_twin(fp8, target):
    """The dequantised model in float32, by torch."""
    shutil.copytree(fp8, target)
    save_file({name: value.contiguous() for name, value in values(fp8).items()}, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    del config["quantization_config"]
    (target / "config.json").write_text(json.dumps(config))
    return target


def same_values(a, b):
    x, y = values(a), values(b)
    return set(x) == set(y) and all(torch.equal(x[name], y[name]) for name in x)


def test_experts_of_fp8_are_aligned(models, tmp_path):
    """Whichever of the two is block-scaled, and whether experts alone or their neurons, too, were shuffled."""
    a, b, _ = models
    config = lambda x, y, **more: config_of("linear", x, y, out_dtype="bfloat16", **more)
    expected = merge(tmp_path, config(a, b), name="expected")
    groups = json.loads((a / "config.json").read_text())["n_group"]
    orders = shuffle_experts(b, tmp_path / "experts", 3, groups, neurons=False)
    assert any(order != sorted(order) for order in orders.values())
    assert not same_values(merge(tmp_path, config(a, tmp_path / "experts"), name="unaligned"), expected)
    aligned = merge(tmp_path, config(a, tmp_path / "experts", align_experts=True), name="aligned")
    assert same_values(aligned, expected)
    assert (merge(tmp_path, config(a, tmp_path / "experts", align_experts=True), ranks=3, name="ranks") / "model.safetensors").read_bytes() == (
        aligned / "model.safetensors").read_bytes()
    shuffle_experts(plain_twin(b, tmp_path / "b"), tmp_path / "neurons", 4, groups)
    assert same_values(merge(tmp_path, config(a, tmp_path / "neurons", align_experts=True), name="mixed"), expected)


def test_similarity_of_fp8_is_that_of_its_values(models, tmp_path):
    a, b, _ = models
    plain = [plain_twin(model, tmp_path / name) for name, model in (("a", a), ("b", b))]
    found, expected = (json.loads(run("similarity", x, y, "--json").stdout)["layers"] for x, y in ((a, b), plain))
    assert found and found == expected
    assert any(abs(value) < 0.99 for layer in found for row in layer["weights"] for value in row)


def test_fp8_sources_are_assembled(workshop, tmp_path):
    """Experts from block-scaled dense models have the values of the dequantised ones, and hidden gates the same router rows."""
    dense = [Path(workshop.model("llama", seed=seed, hidden_size=192, intermediate_size=160)) for seed in (1, 2)]
    fp8 = [quantise_model(model, tmp_path / f"fp8-{i}") for i, model in enumerate(dense)]
    plain = [plain_twin(model, tmp_path / f"plain-{i}") for i, model in enumerate(fp8)]
    outputs = []
    for name, models in (("scaled", fp8), ("plain", plain), ("mixed", (plain[0], fp8[1]))):
        config = {"base_model": str(models[0]), "gate_mode": "hidden", "dtype": "bfloat16",
                  "experts": [{"source_model": str(model), "positive_token_ids": ids} for model, ids in zip(models, ([[3, 4, 5]], [[10, 20, 30]]))]}
        outputs.append(merge(tmp_path, yaml.dump(config), name=name))
    ours = tensors(outputs[0])
    expected = values(fp8[1])
    for ours_name, name in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")):
        own = ours[f"model.layers.0.block_sparse_moe.experts.1.{ours_name}.weight"]
        assert torch.equal(own, expected[f"model.layers.0.mlp.{name}.weight"].to(torch.bfloat16))
    for output in outputs:
        assert all(value.dtype == torch.bfloat16 for value in tensors(output).values()) and same_values(output, outputs[0])
        assert "quantization_config" not in json.loads((output / "config.json").read_text())
        logits5(output)
