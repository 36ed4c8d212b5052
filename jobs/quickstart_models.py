#!/usr/bin/env python3
"""Makes the quickstart's models: SmolLM2-135M-Instruct out of a GGUF file as a Hugging Face directory, and seeded variations of it.

quickstart_models.py GGUF OUT     writes OUT/base, OUT/story, OUT/code and OUT/chat (bfloat16).   Needs numpy and gguf.
"""

import argparse
import hashlib
import json
import os
import shutil
import struct
import sys

import gguf
import numpy

VARIATIONS = ("story", "code", "chat")
# Relative to a matrix' own spread: enough to tell the models apart, too little to make them forget how to speak.
NOISE = 0.03
CONTROL_TOKEN, USER_DEFINED_TOKEN = 3, 4
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHER_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}


def hub_name(name):
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    block, layer, kind, suffix = name.split(".")
    if block != "blk" or kind not in LAYER_NAMES:
        raise SystemExit("quickstart_models.py: unknown tensor %s" % name)
    return "model.layers.%s.%s.%s" % (layer, LAYER_NAMES[kind], suffix)


def undo_rope_interleaving(weight, heads):
    """llama.cpp stores the two halves of each head of q and k interleaved; the hub's layout has one after the other."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def to_bfloat16(values):
    """Round to nearest, ties to even; no NaN in here."""
    bits = numpy.ascontiguousarray(values, dtype=numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


class Source:
    """The GGUF file: its metadata, and its tensors dequantised one at a time."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        if self.field("general.architecture") != "llama":
            raise SystemExit("quickstart_models.py: %s is no llama model" % path)
        self.heads = self.field("llama.attention.head_count")
        self.kv_heads = self.field("llama.attention.head_count_kv")

    def field(self, name, default=None):
        entry = self.reader.fields.get(name)
        return default if entry is None else entry.contents()

    def tensors(self):
        for tensor in self.reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32, copy=False)
            values = values.reshape([int(extent) for extent in reversed(tensor.shape)])
            if tensor.name.endswith("attn_q.weight"):
                values = undo_rope_interleaving(values, self.heads)
            elif tensor.name.endswith("attn_k.weight"):
                values = undo_rope_interleaving(values, self.kv_heads)
            yield hub_name(tensor.name), values

    def config(self):
        hidden = self.field("llama.embedding_length")
        names = {tensor.name for tensor in self.reader.tensors}
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": self.field("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.field("tokenizer.ggml.eos_token_id"),
            "pad_token_id": self.field("tokenizer.ggml.padding_token_id"),
            "head_dim": hidden // self.heads,
            "hidden_act": "silu",
            "hidden_size": hidden,
            "initializer_range": 0.041666666666666664,
            "intermediate_size": self.field("llama.feed_forward_length"),
            "max_position_embeddings": self.field("llama.context_length"),
            "mlp_bias": False,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.field("llama.block_count"),
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": 1e-05,
            "rope_scaling": None,
            "rope_theta": self.field("llama.rope.freq_base"),
            "tie_word_embeddings": "output.weight" not in names,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": len(self.field("tokenizer.ggml.tokens")),
        }

    def write_tokenizer(self, directory):
        tokens = self.field("tokenizer.ggml.tokens")
        kinds = self.field("tokenizer.ggml.token_type")
        added = [
            {"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": kind == CONTROL_TOKEN}
            for index, (token, kind) in enumerate(zip(tokens, kinds)) if kind in (CONTROL_TOKEN, USER_DEFINED_TOKEN)
        ]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        write_json(os.path.join(directory, "tokenizer.json"), {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
            "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {token: index for index, token in enumerate(tokens)}, "merges": self.field("tokenizer.ggml.merges")},
        })
        named = {"bos_token": tokens[self.field("tokenizer.ggml.bos_token_id")], "eos_token": tokens[self.field("tokenizer.ggml.eos_token_id")],
                 "unk_token": tokens[self.field("tokenizer.ggml.unknown_token_id")],
                 "pad_token": tokens[self.field("tokenizer.ggml.padding_token_id")]}
        write_json(os.path.join(directory, "special_tokens_map.json"), named)
        write_json(os.path.join(directory, "tokenizer_config.json"),
                   dict(named, tokenizer_class="PreTrainedTokenizerFast", model_input_names=["input_ids", "attention_mask"],
                        add_prefix_space=False, clean_up_tokenization_spaces=False,
                        model_max_length=self.field("llama.context_length"), chat_template=self.field("tokenizer.chat_template")))
        write_json(os.path.join(directory, "generation_config.json"),
                   {"bos_token_id": self.field("tokenizer.ggml.bos_token_id"), "eos_token_id": self.field("tokenizer.ggml.eos_token_id"),
                    "pad_token_id": self.field("tokenizer.ggml.padding_token_id")})


def vary(values, variation, name):
    """The base itself, or the base with noise that depends on nothing but the variation's and the tensor's name."""
    if variation == "base" or values.ndim < 2:
        return values
    seed = int.from_bytes(hashlib.sha256(("%s/%s" % (variation, name)).encode()).digest()[:8], "little")
    noise = numpy.random.Generator(numpy.random.Philox(seed)).standard_normal(values.shape, dtype=numpy.float32)
    return values + numpy.float32(NOISE * values.std()) * noise


class ModelFile:
    """model.safetensors, written tensor by tensor behind a header that the shapes alone decide."""

    def __init__(self, path, shapes):
        header, offset = {"__metadata__": {"format": "pt"}}, 0
        for name, shape in shapes:
            end = offset + 2 * int(numpy.prod(shape))
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.file = open(path, "wb")
        self.file.write(struct.pack("<Q", len(text)) + text)

    def append(self, values):
        to_bfloat16(values).tofile(self.file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("out")
    arguments = parser.parse_args()
    source = Source(arguments.gguf)
    shapes = [(hub_name(tensor.name), [int(extent) for extent in reversed(tensor.shape)]) for tensor in source.reader.tensors]
    names = ("base",) + VARIATIONS
    files = {}
    for name in names:
        directory = os.path.join(arguments.out, name + ".partial")
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        write_json(os.path.join(directory, "config.json"), source.config())
        source.write_tokenizer(directory)
        files[name] = ModelFile(os.path.join(directory, "model.safetensors"), shapes)
    for tensor_name, values in source.tensors():
        for name in names:
            files[name].append(vary(values, name, tensor_name))
    for name in names:
        files[name].file.close()
        directory = os.path.join(arguments.out, name)
        shutil.rmtree(directory, ignore_errors=True)
        os.rename(directory + ".partial", directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
