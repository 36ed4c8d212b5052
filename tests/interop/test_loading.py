"""What moeweld writes is read by transformers 4 and 5, without a missing or unexpected weight."""

import json
from pathlib import Path

import pytest
import torch
import xxhash
import yaml

from conftest import load5, logits4, logits5, merge, run, tensors


def linear(a, b, **more):
    return yaml.dump({"merge_method": "linear", "models": [{"model": a, "parameters": {"weight": 0.5}}, {"model": b, "parameters": {"weight": 0.5}}], **more})


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "mixtral"])
def test_table_families_load_in_both_generations(workshop, tmp_path, family):
    out = merge(tmp_path, linear(workshop.model(family, seed=1), workshop.model(family, seed=2)))
    five = logits5(out, family)
    assert torch.allclose(five, logits4(out), atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("family", ["gpt2", "phi", "gemma2", "bert", "whisper"])
def test_other_architectures_merge_by_name(workshop, tmp_path, family):
    load5(merge(tmp_path, linear(workshop.model(family, seed=1), workshop.model(family, seed=2))), family)


@pytest.mark.parametrize("shard", ["5GB", "100KB"])
def test_sharded_input_and_output(workshop, tmp_path, shard):
    a, b = workshop.model(seed=1, shard=shard), workshop.model(seed=2, shard=shard)
    whole = tensors(merge(tmp_path, linear(a, b), name="whole"))
    cut = merge(tmp_path, linear(a, b), "--out-shard-size", "150K", name="cut")
    files = sorted(p.name for p in cut.glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert {n: v.tolist() for n, v in tensors(cut).items()} == {n: v.tolist() for n, v in whole.items()}
    logits5(cut)


def test_index_and_manifest_say_what_is_there(workshop, tmp_path):
    out = merge(tmp_path, linear(workshop.model(seed=1), workshop.model(seed=2)), "--out-shard-size", "150K")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    found = tensors(out)
    assert set(index["weight_map"]) == set(found)
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in found.values())
    manifest = json.loads((out / "moeweld_manifest.json").read_text())
    for entry in manifest["files"]:
        data = (out / entry["name"]).read_bytes()
        chunks = b"".join(xxhash.xxh3_128_digest(data[i:i + (1 << 20)]) for i in range(0, len(data), 1 << 20))
        assert entry["digest"] == "xxh3-128-1MiB:" + xxhash.xxh3_128_hexdigest(chunks), entry["name"]


@pytest.mark.parametrize("family", ["llama", "qwen3", "qwen2"])
def test_stacked_models_load(workshop, tmp_path, family):
    a, b = workshop.model(family, seed=1), workshop.model(family, seed=2)
    text = yaml.dump({"merge_method": "passthrough", "slices": [{"sources": [{"model": a, "layer_range": [0, 3]}]}, {"sources": [{"model": b, "layer_range": [1, 4]}]}]})
    out = merge(tmp_path, text)
    logits5(out, family)
    stacked, x, y = tensors(out), tensors(a), tensors(b)
    for layer in range(6):
        name = "model.layers.{}.mlp.up_proj.weight"
        assert torch.equal(stacked[name.format(layer)], x[name.format(layer)] if layer < 3 else y[name.format(layer - 2)])
    assert torch.equal(stacked["model.embed_tokens.weight"], x["model.embed_tokens.weight"])
    assert torch.equal(stacked["model.norm.weight"], y["model.norm.weight"])


def test_tied_and_untied_heads_in_one_merge(workshop, tmp_path):
    tied, untied = workshop.model(seed=1, tie_word_embeddings=True), workshop.model(seed=2)
    out = merge(tmp_path, linear(tied, untied))
    merged = tensors(out)
    expected = (tensors(tied)["model.embed_tokens.weight"].double() + tensors(untied)["lm_head.weight"].double()) / 2
    assert torch.equal(merged["lm_head.weight"], expected.to(torch.bfloat16))
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.allclose(logits5(out), logits4(out), atol=2e-4, rtol=2e-3)


def test_models_of_a_hub_cache_are_found_by_name_and_revision(workshop, tmp_path):
    """A cache's snapshots are symlinks into its blobs."""
    cache = tmp_path / "hub"
    for revision, seed in (("main", 1), ("v2", 2)):
        commit = f"{seed:040x}"
        snapshot = cache / "models--some--model" / "snapshots" / commit
        blobs = cache / "models--some--model" / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir(exist_ok=True)
        for file in Path(workshop.model(seed=seed)).iterdir():
            blob = blobs / f"{seed}-{file.name}"
            blob.write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
        refs = cache / "models--some--model" / "refs"
        refs.mkdir(exist_ok=True)
        (refs / revision).write_text(commit)
    (tmp_path / "c.yml").write_text(linear("some/model", "some/model@v2"))
    run("merge", tmp_path / "c.yml", tmp_path / "out", "-q", env={"HF_HUB_CACHE": str(cache)})
    expected = merge(tmp_path, linear(workshop.model(seed=1), workshop.model(seed=2)), name="direct")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    refused = run("plan", tmp_path / "c.yml", ok=False, env={"HF_HUB_CACHE": str(tmp_path / "nowhere")})
    assert refused.returncode == 3 and "some/model" in refused.stderr


@pytest.mark.parametrize("ranks", [2, 4])
def test_same_bytes_on_any_number_of_ranks(workshop, tmp_path, ranks):
    base = workshop.model(seed=1, intermediate_size=4096)
    tuned = [workshop.model(seed=s, base=base, intermediate_size=4096) for s in (41, 42)]
    text = yaml.dump({"merge_method": "ties", "base_model": base, "models": [{"model": m, "parameters": {"weight": 0.5, "density": 0.5}} for m in tuned]})
    one = merge(tmp_path, text, name="one")
    many = merge(tmp_path, text, "--threads", "2", ranks=ranks, name="many")
    assert (one / "model.safetensors").read_bytes() == (many / "model.safetensors").read_bytes()
