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
            result[name] = value
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
