#!/usr/bin/env python3
"""Writes tiny model directories with the standard library alone: real tensor names, config.json, a tokenizer, one or several shards.

As a module:  write_model("out", family="llama", seed=1)
As a command: tiny_models.py OUT --family mixtral --seed 3 --shards 2

The same (seed, tensor name) gives the same numbers whatever the shards and the layout are. Large sizes are fine too: values are made with byte
tables, so a gigabyte takes seconds.
"""

import argparse
import json
import os
import random
import struct

ELEMENT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
SAFETENSORS_NAME = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
}

# Bytes that hold the sign and the exponent, so that magnitudes lie between about 2^-9 and 2^-5.
_HIGH_BYTES = {
    "bfloat16": bytes([0x3B, 0x3C, 0xBB, 0xBC][i % 4] for i in range(256)),
    "float32": bytes([0x3B, 0x3C, 0xBB, 0xBC][i % 4] for i in range(256)),
    "float16": bytes([0x18, 0x1C, 0x20, 0x24, 0x98, 0x9C, 0xA0, 0xA4][i % 8] | ((i >> 3) & 3) for i in range(256)),
    "float64": bytes([0x3F, 0xBF][i % 2] for i in range(256)),
}
_FLOAT64_SECOND = bytes(([0x60, 0x70, 0x80, 0x90][i % 4] | (i >> 4)) for i in range(256))


def encode(values, dtype):
    """Numbers as the bytes of a tensor; bfloat16 is cut, not rounded."""
    if dtype == "float64":
        return struct.pack("<%dd" % len(values), *values)
    if dtype == "float16":
        return struct.pack("<%de" % len(values), *values)
    single = struct.pack("<%df" % len(values), *values)
    if dtype == "float32":
        return single
    halves = bytearray(2 * len(values))
    halves[0::2] = single[2::4]
    halves[1::2] = single[3::4]
    return bytes(halves)


def weight_bytes(seed, name, count, dtype):
    """`count` reproducible small numbers of either sign; those of norms lie near 1."""
    generator = random.Random("%s/%s" % (seed, name))
    if "norm" in name:
        return encode([1.0 + generator.uniform(-0.1, 0.1) for _ in range(count)], dtype)
    width = ELEMENT_BYTES[dtype]
    data = bytearray(generator.randbytes(count * width))
    data[width - 1 :: width] = bytes(data[width - 1 :: width]).translate(_HIGH_BYTES[dtype])
    if dtype == "float64":
        data[6::8] = bytes(data[6::8]).translate(_FLOAT64_SECOND)
    return bytes(data)


def model_tensors(family, seed, dtype, layers, hidden, intermediate, vocab, heads, kv_heads, head_dim, experts, tied, fused):
    """(name, shape, bytes) in the usual order; one at a time, so that big models need little memory."""

    def tensor(name, *shape):
        count = 1
        for extent in shape:
            count *= extent
        return name, list(shape), weight_bytes(seed, name, count, dtype)

    yield tensor("model.embed_tokens.weight", vocab, hidden)
    for layer in range(layers):
        prefix = "model.layers.%d." % layer
        yield tensor(prefix + "input_layernorm.weight", hidden)
        for projection, rows in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            yield tensor(prefix + "self_attn.%s_proj.weight" % projection, rows * head_dim, hidden)
            if family == "qwen2":
                yield tensor(prefix + "self_attn.%s_proj.bias" % projection, rows * head_dim)
        yield tensor(prefix + "self_attn.o_proj.weight", hidden, heads * head_dim)
        if family == "qwen3":
            yield tensor(prefix + "self_attn.q_norm.weight", head_dim)
            yield tensor(prefix + "self_attn.k_norm.weight", head_dim)
        yield tensor(prefix + "post_attention_layernorm.weight", hidden)
        if family != "mixtral":
            yield tensor(prefix + "mlp.gate_proj.weight", intermediate, hidden)
            yield tensor(prefix + "mlp.up_proj.weight", intermediate, hidden)
            yield tensor(prefix + "mlp.down_proj.weight", hidden, intermediate)
            continue
        moe = prefix + "block_sparse_moe."
        router = tensor(moe + "gate.weight", experts, hidden)
        matrices = [
            [tensor(moe + "experts.%d.%s.weight" % (expert, which), *shape)
             for which, shape in (("w1", (intermediate, hidden)), ("w2", (hidden, intermediate)), ("w3", (intermediate, hidden)))]
            for expert in range(experts)
        ]
        if not fused:
            yield router
            for expert in matrices:
                yield from expert
        else:
            yield prefix + "mlp.gate.weight", router[1], router[2]
            yield (prefix + "mlp.experts.gate_up_proj", [experts, 2 * intermediate, hidden], b"".join(e[0][2] + e[2][2] for e in matrices))
            yield prefix + "mlp.experts.down_proj", [experts, hidden, intermediate], b"".join(e[1][2] for e in matrices)
    yield tensor("model.norm.weight", hidden)
    if not tied:
        yield tensor("lm_head.weight", vocab, hidden)


def model_config(family, dtype, layers, hidden, intermediate, vocab, heads, kv_heads, head_dim, experts, tied):
    config = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": intermediate,
        "max_position_embeddings": 512,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": vocab,
    }
    if family == "llama":
        config.update({"attention_bias": False, "mlp_bias": False, "rope_scaling": None})
    if family in ("mistral", "mixtral"):
        config["sliding_window"] = None
    if family in ("qwen2", "qwen3"):
        config.update({"layer_types": ["full_attention"] * layers, "max_window_layers": layers, "sliding_window": None, "use_sliding_window": False})
    if family == "qwen3":
        config["attention_bias"] = False
    if family == "mixtral":
        config.update({"num_local_experts": experts, "num_experts_per_tok": 2, "output_router_logits": False, "router_aux_loss_coef": 0.02})
    return config


def write_tokenizer(directory, vocab):
    """A token for every printable ASCII character, and names that stand for the rest of the vocabulary."""
    tokens = ["<unk>", "<s>", "</s>", "\u0120", *map(chr, range(0x21, 0x7F))][:vocab]
    tokens += ["w%d" % index for index in range(len(tokens), vocab)]
    words = {token: index for index, token in enumerate(tokens)}
    special = [{"id": index, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for word, index in list(words.items())[:3]]
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}, "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": words, "merges": []},
    }
    write_json(os.path.join(directory, "tokenizer.json"), tokenizer)
    write_json(os.path.join(directory, "tokenizer_config.json"),
               {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    write_json(os.path.join(directory, "special_tokens_map.json"), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    write_json(os.path.join(directory, "generation_config.json"), {"bos_token_id": 1, "eos_token_id": 2, "_from_model_config": True})


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def write_safetensors(path, tensors):
    """tensors: (name, shape, bytes, safetensors dtype), written without gaps."""
    header = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape, data, dtype in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for _, _, data, _ in tensors:
            file.write(data)


def read_safetensors(path):
    """{name: (dtype, shape, bytes)} of one file."""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    result = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        result[name] = (entry["dtype"], entry["shape"], content[8 + length + begin : 8 + length + end])
    return result


def read_model(directory):
    """{name: (dtype, shape, bytes)} of all safetensors files of a directory."""
    result = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".safetensors"):
            result.update(read_safetensors(os.path.join(directory, name)))
    return result


def write_model(directory, family="llama", seed=0, dtype="bfloat16", layers=2, hidden=64, intermediate=128, vocab=256, heads=4, kv_heads=2,
                head_dim=None, experts=4, shards=1, tied=False, fused=False, tokenizer=True, config=None):
    """Writes one model directory and returns its path. `config`: entries of config.json to change (None removes one)."""
    os.makedirs(directory, exist_ok=True)
    head_dim = head_dim or hidden // heads
    tensors = list(model_tensors(family, seed, dtype, layers, hidden, intermediate, vocab, heads, kv_heads, head_dim, experts, tied, fused))
    entries = model_config(family, dtype, layers, hidden, intermediate, vocab, heads, kv_heads, head_dim, experts, tied)
    for key, value in (config or {}).items():
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value
    write_json(os.path.join(directory, "config.json"), entries)
    if tokenizer:
        write_tokenizer(directory, vocab)
    total = sum(len(data) for _, _, data in tensors)
    parts = [[] for _ in range(shards)]
    written = 0
    for name, shape, data in tensors:
        parts[min(shards - 1, written * shards // max(1, total))].append((name, shape, data, SAFETENSORS_NAME[dtype]))
        written += len(data)
    parts = [part for part in parts if part]
    weight_map = {}
    for index, part in enumerate(parts):
        name = "model.safetensors" if len(parts) == 1 else "model-%05d-of-%05d.safetensors" % (index + 1, len(parts))
        write_safetensors(os.path.join(directory, name), part)
        weight_map.update({tensor[0]: name for tensor in part})
    if len(parts) > 1:
        write_json(os.path.join(directory, "model.safetensors.index.json"), {"metadata": {"total_size": total}, "weight_map": weight_map})
    return directory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--family", choices=sorted(ARCHITECTURES), default="llama")
    parser.add_argument("--dtype", choices=sorted(ELEMENT_BYTES), default="bfloat16")
    for name, default in (("seed", 0), ("layers", 2), ("hidden", 64), ("intermediate", 128), ("vocab", 256), ("heads", 4), ("kv-heads", 2),
                          ("experts", 4), ("shards", 1)):
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--head-dim", type=int)
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--fused", action="store_true", help="mixtral: one tensor for all experts")
    parser.add_argument("--no-tokenizer", dest="tokenizer", action="store_false")
    write_model(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
