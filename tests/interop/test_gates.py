"""Router rows of the gate modes that need a forward pass, against torch in float32."""

import json

import pytest
import torch
import yaml

from conftest import load5, merge, run, tensors
from test_check import ROPES, SMALL, fill

import transformers

PROMPTS = [dict(positive_token_ids=[[1, 5, 9, 100], [1, 33]], negative_token_ids=[[1, 200, 201, 7]]),
           dict(positive_token_ids=[[1, 77, 78, 79, 80, 81, 82]]),
           dict(positive_token_ids=[[1, 5, 9, 100], [300], [1, 12, 13]], negative_token_ids=[[1, 250], [1, 251, 252]]),
           dict(positive_token_ids=[list(range(20, 90))])]
BASES = {
    "llama": ("LlamaConfig", dict(rope_parameters=dict(ROPES["llama3"]))),
    "llama yarn": ("LlamaConfig", dict(rope_parameters=dict(ROPES["yarn"]), head_dim=24)),
    "mistral": ("MistralConfig", dict(sliding_window=9)),
    "qwen2": ("Qwen2Config", dict()),
    "qwen3": ("Qwen3Config", dict(head_dim=16)),
}
# Those that become a mixture without shared experts.
PLAIN = ["llama", "llama yarn", "mistral", "qwen3"]


def make(root, name, seed, dtype=torch.float32):
    where = root / f"{name}-{seed}".replace(" ", "-")
    config_class, fields = BASES[name]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config_class)(**{**SMALL, **fields}))
    fill(model, seed).to(dtype).save_pretrained(where)
    return where


def assembly(base, experts, prompts, gate, **more):
    return yaml.dump({"base_model": str(base), "gate_mode": gate, "experts_per_token": 2, "dtype": "float32", **more,
                      "experts": [{"source_model": str(e), **p} for e, p in zip(experts, prompts)]})


def states_of(model, ids, gate):
    """[layer, hidden] of one prompt, alone and without padding."""
    routed = []
    hooks = [layer.post_attention_layernorm.register_forward_hook(lambda _, __, out: routed.append(out[0, -1])) for layer in model.model.layers]
    with torch.no_grad():
        hidden = torch.stack(model(torch.tensor([ids]), output_hidden_states=True).hidden_states[:-1])[:, 0]
    for hook in hooks:
        hook.remove()
    return {"hidden": hidden[:, -1], "hidden_avg": hidden.mean(1), "router_input": torch.stack(routed)}[gate].double()


def expected_rows(model, prompts, gate):
    rows = []
    for prompt in prompts:
        row = torch.stack([states_of(model, ids, gate) for ids in prompt["positive_token_ids"]]).mean(0)
        if "negative_token_ids" in prompt:
            row = row - torch.stack([states_of(model, ids, gate) for ids in prompt["negative_token_ids"]]).mean(0)
        rows.append(row / row.norm(dim=-1, keepdim=True).clamp(min=1e-8))
    return torch.stack(rows, dim=1)  # [layer, expert, hidden]


def routers(directory):
    values = tensors(directory)
    return torch.stack([values[name] for name in sorted(n for n in values if n.endswith("gate.weight"))]).double()


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("gate", ["hidden", "hidden_avg", "router_input"])
def test_router_rows_are_those_of_a_torch_forward(tmp_path, name, gate):
    models = [make(tmp_path, name, seed) for seed in (1, 2, 3, 4)]
    out = merge(tmp_path, assembly(models[0], models, PROMPTS, gate))
    expected = expected_rows(transformers.AutoModelForCausalLM.from_pretrained(models[0], dtype=torch.float32).eval(), PROMPTS, gate)
    rows = routers(out)
    assert rows.shape == expected.shape
    cosine = torch.nn.functional.cosine_similarity(rows, expected, dim=-1)
    assert cosine.min() >= 0.99999, cosine
    assert torch.allclose(rows.norm(dim=-1), torch.ones(rows.shape[:2], dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("gate", ["hidden", "router_input"])
def test_the_gate_of_shared_experts_is_the_unit_mean_of_their_rows(tmp_path, gate):
    models = [make(tmp_path, "qwen2", seed) for seed in (1, 2, 3, 4)]
    shared = [{"source_model": str(m), **p} for m, p in zip(models[2:], PROMPTS[2:])]
    out = merge(tmp_path, assembly(models[0], models[:2], PROMPTS[:2], gate, shared_experts=shared))
    rows = expected_rows(transformers.AutoModelForCausalLM.from_pretrained(models[0], dtype=torch.float32).eval(), PROMPTS, gate)
    expected = torch.nn.functional.normalize(rows[:, 2:].mean(1), dim=-1)
    values = tensors(out)
    for layer in range(len(rows)):
        cosine = torch.nn.functional.cosine_similarity(values[f"model.layers.{layer}.mlp.gate.weight"].double(), rows[layer, :2], dim=-1)
        assert cosine.min() >= 0.99999
        gate_row = values[f"model.layers.{layer}.mlp.shared_expert_gate.weight"].double()
        assert gate_row.shape == (1, 64) and torch.nn.functional.cosine_similarity(gate_row[0], expected[layer], dim=0) >= 0.99999
    load5(out, "qwen2_moe")


def test_the_default_gate_is_hidden_and_hidden_last_is_its_other_name(tmp_path):
    models = [make(tmp_path, "llama", seed) for seed in (1, 2)]
    outs = []
    for name, gate in (("none", None), ("hidden", "hidden"), ("last", "hidden_last")):
        text = assembly(models[0], models, PROMPTS, gate) if gate else assembly(models[0], models, PROMPTS, "x").replace("gate_mode: x\n", "")
        outs.append((merge(tmp_path, text, name=name) / "model.safetensors").read_bytes())
    assert outs[0] == outs[1] == outs[2]


@pytest.mark.parametrize("gate", ["hidden_avg", "router_input"])
def test_same_bytes_on_any_number_of_ranks_and_threads_and_any_memory_limit(tmp_path, gate):
    models = [make(tmp_path, "mistral", seed, torch.bfloat16) for seed in (1, 2, 3, 4)]
    text = assembly(models[0], models, PROMPTS, gate)
    outs = [merge(tmp_path, text, *flags, ranks=ranks, name=f"{number}") for number, (ranks, flags) in enumerate(
        [(1, ()), (1, ("--threads", 3)), (3, ("--threads", 1)), (2, ("--memory-limit", "110M"))])]
    for out in outs[1:]:
        assert (out / "model.safetensors").read_bytes() == (outs[0] / "model.safetensors").read_bytes()
    assert json.loads((outs[0] / "moeweld_manifest.json").read_text())["blas_core"]


def test_equal_experts_with_hidden_gates_compute_what_the_base_does(tmp_path):
    base = make(tmp_path, "mistral", 1)
    out = merge(tmp_path, assembly(base, [base] * 4, PROMPTS, "hidden"), "--allow-degenerate")
    ids = torch.tensor([[1, 5, 9, 100, 33, 7]])
    with torch.no_grad():
        assert torch.allclose(load5(out, "mixtral")(ids).logits, load5(base, "mistral")(ids).logits, atol=1e-4, rtol=1e-4)


def test_orthogonal_rows(tmp_path):
    models = [make(tmp_path, "llama", seed) for seed in (1, 2)] * 3
    nothing = [{}] * 6
    rows = routers(merge(tmp_path, assembly(models[0], models, nothing, "orthogonal")))
    for layer in rows:
        assert torch.allclose(layer @ layer.T, torch.eye(6, dtype=torch.float64), atol=1e-6)
    assert (rows[0] - rows[1]).abs().max() > 0.05
    # Directions are not those of the axes, and another seed gives others.
    assert rows.abs().max() < 0.7
    again = routers(merge(tmp_path, assembly(models[0], models, nothing, "orthogonal"), "--random-seed", "5", ranks=2, name="again"))
    assert (rows - again).abs().max() > 0.05


def test_degenerate_routers_are_named(tmp_path):
    models = [make(tmp_path, "llama", seed) for seed in (1, 2)]
    alike = [dict(positive_token_ids=[[1, 5, 9, 100]]), dict(positive_token_ids=[[2, 5, 9, 100]])]
    (tmp_path / "moe.yml").write_text(assembly(models[0], models, alike, "hidden"))
    said = run("merge", tmp_path / "moe.yml", tmp_path / "out").stdout
    expected = expected_rows(transformers.AutoModelForCausalLM.from_pretrained(models[0], dtype=torch.float32).eval(), alike, "hidden")
    bad = [str(layer) for layer in range(len(expected)) if torch.linalg.cond(expected[layer]) > 5]
    assert bad == ["0"], bad  # the last token is the same, so its embedding is: layer 0 cannot tell the prompts apart
    assert "warning: the routers of layer 0 are degenerate" in said, said


def give_tokenizer(directory, bos="<s>"):
    """A byte-level BPE whose vocabulary fits SMALL's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=SMALL["vocab_size"], special_tokens=["<unk>", "<s>", "</s>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(["Write a program that sorts a list.", "Tell me a story about a list of stars."] * 20, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(directory)
    return fast


TEXTS = [dict(positive_prompts=["Write a program", "sort this list: 3, 1, 2"], negative_prompts=["a story"]),
         dict(positive_prompts=["Tell me a story about the stars"]),
         dict(positive_prompts=["naïve café — 東京"], negative_prompts=["Write", "a\nlist"])]


@pytest.mark.parametrize("bos", ["<s>", None])
def test_prompts_become_the_ids_of_the_base_s_tokenizer_after_its_bos(tmp_path, bos):
    models = [make(tmp_path, "llama", seed) for seed in (1, 2, 3)]
    tokenizer = give_tokenizer(models[0], bos)
    as_ids = lambda texts: [([1] if bos else []) + tokenizer.encode(text, add_special_tokens=False) for text in texts]
    ids = [{key.replace("prompts", "token_ids"): as_ids(texts) for key, texts in prompts.items()} for prompts in TEXTS]
    for gate in ("hidden", "cheap_embed"):
        by_text, by_ids = (merge(tmp_path, assembly(models[0], models, prompts, gate), name=f"{gate}-{number}")
                           for number, prompts in enumerate((TEXTS, ids)))
        assert (by_text / "model.safetensors").read_bytes() == (by_ids / "model.safetensors").read_bytes()
    (tmp_path / "text.txt").write_text("Tell me a story\nabout a list of stars.")
    (tmp_path / "prompts.txt").write_text("Write a program\n\nTell me a story\n")
    text = json.loads(run("check", models[0], "--text", tmp_path / "text.txt", "--json").stdout)
    assert text["ids"] == as_ids(["Tell me a story\nabout a list of stars."]) and text["perplexity"] > 1
    prompts = json.loads(run("check", models[0], "--prompts", tmp_path / "prompts.txt", "--json").stdout)
    assert prompts["ids"] == as_ids(["Write a program", "Tell me a story"]) and len(prompts["next_tokens"]) == 2


def test_a_text_longer_than_the_model_was_made_for_is_cut(tmp_path):
    base = make(tmp_path, "llama", 1)
    tokenizer = give_tokenizer(base)
    words = "Tell me a story about a list of stars. " * 80
    (tmp_path / "text.txt").write_text(words)
    ids = [1] + tokenizer.encode(words, add_special_tokens=False)
    said = json.loads(run("check", base, "--text", tmp_path / "text.txt", "--json").stdout)
    assert len(ids) > 600 and said["ids"] == [ids[i:i + 256] for i in range(0, len(ids), 256)]


def test_prompts_without_a_tokenizer_are_refused_with_what_to_do(tmp_path):
    models = [make(tmp_path, "llama", seed) for seed in (1, 2)]
    (tmp_path / "moe.yml").write_text(assembly(models[0], models, TEXTS, "hidden"))
    said = run("merge", tmp_path / "moe.yml", tmp_path / "out", ok=False)
    assert said.returncode == 3 and "tokenizer" in said.stderr and "positive_token_ids may replace them" in said.stderr
    assert said.stderr.count("positive_token_ids may replace them") == 1
