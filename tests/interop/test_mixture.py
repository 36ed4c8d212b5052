"""Mixtrals assembled from dense models: layouts, router rows, and experts taken out of them. test_assembly.py has the other families."""

import pytest
import torch
import yaml

from conftest import load5, logits4, logits5, merge, run, tensors


def assembly(base, experts, gate="random", **more):
    return yaml.dump({"base_model": base, "gate_mode": gate, "experts_per_token": 2, **more,
                      "experts": [e if isinstance(e, dict) else {"source_model": e} for e in experts]})


def test_fused_layout_is_the_same_model(workshop, tmp_path):
    models = [workshop.model(seed=s) for s in (1, 2, 3, 4)]
    per_expert = merge(tmp_path, assembly(models[0], models), name="per-expert")
    fused = merge(tmp_path, assembly(models[0], models), "--layout", "fused", name="fused")
    assert "model.layers.0.mlp.experts.gate_up_proj" in tensors(fused)
    assert torch.equal(logits5(per_expert, "mixtral"), logits5(fused, "mixtral"))


def test_fused_and_per_expert_mixtrals_merge_with_each_other(workshop, tmp_path):
    models = [workshop.model(seed=s) for s in (1, 2, 3, 4)]
    a = merge(tmp_path, assembly(models[0], models), name="a")
    b = merge(tmp_path, assembly(models[1], models[::-1]), "--layout", "fused", name="b")
    b_per_expert = merge(tmp_path, assembly(models[1], models[::-1]), name="b-per-expert")
    results = []
    for number, other in enumerate((b, b_per_expert)):
        text = yaml.dump({"merge_method": "slerp", "base_model": str(a), "models": [{"model": str(a)}, {"model": str(other)}], "parameters": {"t": 0.4}})
        results.append(merge(tmp_path, text, name=f"merged-{number}") / "model.safetensors")
    assert results[0].read_bytes() == results[1].read_bytes()


def test_cheap_embed_rows_are_unit_sums_of_token_embeddings(workshop, tmp_path):
    models = [workshop.model(seed=s) for s in (1, 2)]
    experts = [{"source_model": models[0], "positive_token_ids": [[3, 4], [5]]},
               {"source_model": models[1], "positive_token_ids": [[10]], "negative_token_ids": [[11, 12]]}]
    out = tensors(merge(tmp_path, assembly(models[0], experts, "cheap_embed", dtype="float32")))
    e = tensors(models[0])["model.embed_tokens.weight"].double()
    unit = lambda v: v / v.norm()
    rows = torch.stack([unit(e[3] + e[4] + e[5]), unit(unit(e[10]) - unit(e[11] + e[12]))])
    for layer in range(4):
        assert torch.allclose(out[f"model.layers.{layer}.block_sparse_moe.gate.weight"].double(), rows, atol=1e-7)


def test_random_rows_have_the_stated_distribution(workshop, tmp_path):
    models = [workshop.model(seed=s, num_hidden_layers=2, hidden_size=256) for s in (1, 2)]
    normal = tensors(merge(tmp_path, assembly(models[0], models * 4, dtype="float32"), name="normal"))
    rows = torch.cat([v.flatten() for n, v in normal.items() if "gate.weight" in n])
    assert abs(rows.mean()) < 0.06 and abs(rows.std() - 1) < 0.06 and not torch.equal(rows[:2048], rows[2048:4096])
    uniform = tensors(merge(tmp_path, assembly(models[0], models * 4, "uniform_random", dtype="float32"), name="uniform"))
    rows = torch.cat([v.flatten() for n, v in uniform.items() if "gate.weight" in n])
    assert rows.abs().max() <= 1 / 16 and rows.abs().max() > 0.06 and abs(rows.mean()) < 0.003
    again = tensors(merge(tmp_path, assembly(models[0], models * 4, dtype="float32"), "--random-seed", "1", name="again"))
    assert not torch.equal(again["model.layers.0.block_sparse_moe.gate.weight"], normal["model.layers.0.block_sparse_moe.gate.weight"])


@pytest.mark.parametrize("layout", ["per_expert", "fused"])
def test_an_extracted_expert_is_its_source_again(workshop, tmp_path, layout):
    models = [workshop.model("mistral", seed=s) for s in (1, 2, 3, 4)]
    moe = merge(tmp_path, assembly(models[0], models), "--layout", layout, ranks=2)
    for expert in (0, 2):
        run("extract", moe, tmp_path / f"expert-{expert}", "--expert", expert, "-q")
        extracted, base, source = tensors(tmp_path / f"expert-{expert}"), tensors(models[0]), tensors(models[expert])
        assert set(extracted) == set(base)
        for name, value in extracted.items():
            assert torch.equal(value, source[name] if ".mlp." in name else base[name]), name
        load5(tmp_path / f"expert-{expert}", "mistral")
    assert torch.equal(logits5(tmp_path / "expert-0", "mistral"), logits5(models[0], "mistral"))
    assert torch.allclose(logits4(tmp_path / "expert-0"), logits5(models[0], "mistral"), atol=1e-5, rtol=1e-4)
