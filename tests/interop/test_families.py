"""What depends on the family and on the form of the configuration: gradients, filters and slices against mergekit, tokenizers, revisions."""

from pathlib import Path

import pytest
import torch
import transformers
import yaml

from conftest import logits5, merge, run, tensors
from test_methods import assert_within_bound, entry, linear, peer, slerp, ties

FAMILIES = {"llama": {}, "mistral": {}, "qwen2": {"tie_word_embeddings": True}, "qwen3": {}, "gemma2": {}, "phi": {}}


def tiny_tokenizer(directory):
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, 320)}}
    from tokenizers import Tokenizer, models, pre_tokenizers
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>").save_pretrained(directory)


def differing(ours, tmp_path, text, undecided=lambda name: False):
    """(elements that equal neither of mergekit's results, elements compared)"""
    single, double = peer(tmp_path, text, "float32"), peer(tmp_path, text, "float64")
    assert set(ours) == set(single)
    unlike = total = 0
    for name, value in ours.items():
        keep = torch.logical_not(torch.as_tensor(undecided(name)).expand(value.shape))
        unlike += int(((value != single[name]) & (value != double[name]) & keep).sum())
        total += int(keep.sum())
    return unlike, total


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_and_filters_follow_the_layers_of_a_slice(workshop, tmp_path, family):
    a = workshop.model(family, seed=1, **FAMILIES[family])
    b = workshop.model(family, seed=51, base=a, scale=0.02, **FAMILIES[family])
    gradients = {"self_attn": [0, 0.5, 0.3, 1], "mlp": [1, 0.5, 0.7, 0]}
    text = yaml.dump({
        "merge_method": "slerp", "base_model": a, "out_dtype": "bfloat16",
        "slices": [{"sources": [{"model": a, "layer_range": [0, 4]}, {"model": b, "layer_range": [0, 4]}]}],
        "parameters": {"t": [{"filter": name, "value": values} for name, values in gradients.items()] + [{"value": 0.4}]},
    })
    ours = tensors(merge(tmp_path, text))
    x, y = tensors(a), tensors(b)
    for name, value in ours.items():
        t = 0.4
        for part, values in gradients.items():
            if part in name:
                t = values[int(name.split(".layers.")[1].split(".")[0])]
        assert_within_bound(value, *slerp([x[name], y[name]], t))
    unlike, total = differing(ours, tmp_path, text)
    assert unlike <= 1e-4 * total, f"{unlike} of {total} elements"


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_ties_agrees_with_mergekit_in_every_family(workshop, tmp_path, family):
    base = workshop.model(family, seed=1, **FAMILIES[family])
    tuned = [workshop.model(family, seed=seed, base=base, **FAMILIES[family]) for seed in (61, 62)]
    text = yaml.dump({"merge_method": "ties", "base_model": base, "out_dtype": "bfloat16",
                      "models": [entry(tuned[0], weight=0.7, density=0.5), entry(tuned[1], weight=0.45, density=0.5)]})
    ours = tensors(merge(tmp_path, text))
    b, x = tensors(base), [tensors(model) for model in tuned]
    unlike, total = differing(ours, tmp_path, text, lambda name: ties([i[name] for i in x], b[name], (0.7, 0.45), 0.5)[2])
    assert unlike <= 1e-4 * total, f"{unlike} of {total} elements"


def test_without_a_type_the_output_has_the_promoted_one(workshop, tmp_path):
    models = [workshop.model(seed=1), workshop.model(seed=2, dtype=torch.float16), workshop.model(seed=3, dtype=torch.float32)]
    for chosen, expected in (([models[0], workshop.model(seed=4)], torch.bfloat16), (models[:2], torch.float32), (models[1:], torch.float32)):
        text = yaml.dump({"merge_method": "linear", "models": [entry(model, weight=1.0) for model in chosen]})
        ours, inputs = tensors(merge(tmp_path, text, "--force")), [tensors(model) for model in chosen]
        for name, value in ours.items():
            assert value.dtype == expected
            assert_within_bound(value, *linear([i[name] for i in inputs], [1.0, 1.0]))


def test_the_copied_tokenizer_loads(workshop, tmp_path):
    a, b = workshop.model(seed=71), workshop.model(seed=72)
    for directory in (a, b):
        tiny_tokenizer(directory)
    out = merge(tmp_path, yaml.dump({"merge_method": "linear", "tokenizer_source": "union", "models": [entry(a, weight=1.0), entry(b, weight=1.0)]}))
    assert transformers.AutoTokenizer.from_pretrained(out)("w5 w9 what </s>").input_ids == [5, 9, 0, 2]


def test_a_fused_mixtral_of_transformers_merges_and_gives_its_experts_back(workshop, tmp_path):
    """save_pretrained of transformers 5 writes per expert; --layout fused is what its modules hold."""
    a, b = workshop.model("mixtral", seed=1), workshop.model("mixtral", seed=2)
    text = yaml.dump({"merge_method": "linear", "models": [entry(a, weight=1.0), entry(b, weight=0.0)]})
    fused = merge(tmp_path, text, "--layout", "fused", name="fused")
    assert torch.equal(logits5(fused, "mixtral"), logits5(a, "mixtral"))
    run("extract", fused, tmp_path / "expert", "--expert", 1, "-q")
    inside, extracted = tensors(a), tensors(tmp_path / "expert")
    assert torch.equal(extracted["model.layers.3.mlp.down_proj.weight"], inside["model.layers.3.block_sparse_moe.experts.1.w2.weight"])
    logits5(tmp_path / "expert", "mistral")


def test_the_mapping_form_and_a_commit_name_a_revision(workshop, tmp_path):
    commits = {}
    repository = tmp_path / "home" / "hub" / "models--org--name"
    for seed in (1, 2):
        commits[seed] = f"{seed}abcdef".ljust(40, "0")
        snapshot = repository / "snapshots" / commits[seed]
        snapshot.mkdir(parents=True)
        for file in Path(workshop.model(seed=seed)).iterdir():
            (snapshot / file.name).symlink_to(file)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commits[1])
    expected = tensors(workshop.model(seed=2))
    for number, reference in enumerate((f"org/name@{commits[2]}", {"model": {"path": "org/name", "revision": commits[2][:7]}})):
        (tmp_path / "c.yml").write_text(yaml.dump({"merge_method": "passthrough", "models": [{"model": reference}]}))
        run("merge", tmp_path / "c.yml", tmp_path / f"out-{number}", "-q", env={"HF_HOME": str(tmp_path / "home")})
        ours = tensors(tmp_path / f"out-{number}")
        assert all(torch.equal(ours[name], expected[name]) for name in expected)
