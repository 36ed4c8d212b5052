#!/usr/bin/env python3
"""Makes checkpoints that are real but for their data: every tensor's name, dtype and shape, files of full size that are one hole.

make_sparse_checkpoint.py deepseek-v3 OUT       61 layers, 256 routed experts and one shared, MLA, the layer that predicts a second token; bfloat16
make_sparse_checkpoint.py deepseek-v3-fp8 OUT   the same as it was published: matrices of layers in FP8, a scale for 128 x 128 elements
make_sparse_checkpoint.py mixtral-8x22b OUT
make_sparse_checkpoint.py deepseek-v3-fp8-slice OUT, mixtral-8x22b-slice OUT, mixtral-8x22b-huge OUT: parts of them; the last two with an embedding
                                                of more than 2^31 and 2^32 elements

Needs the standard library and a file system that knows holes; a terabyte takes some megabytes.
"""

import argparse
import json
import os
import struct

ELEMENT_BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1}


def deepseek_v3(layers=61, dense_layers=3, experts=256, vocab=129280, num_files=163):
    hidden, heads = 7168, 128
    config = {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "attention_bias": False, "bos_token_id": 0, "eos_token_id": 1,
        "first_k_dense_replace": dense_layers, "hidden_act": "silu", "hidden_size": hidden, "intermediate_size": 18432, "kv_lora_rank": 512,
        "max_position_embeddings": 163840, "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": experts,
        "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": heads, "num_experts_per_tok": 8, "num_hidden_layers": layers,
        "num_key_value_heads": heads, "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "rms_norm_eps": 1e-06, "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": False,
        "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "use_cache": True, "v_head_dim": 128, "vocab_size": vocab,
    }

    def feed_forward(prefix, intermediate):
        yield prefix + "gate_proj.weight", [intermediate, hidden], "BF16"
        yield prefix + "up_proj.weight", [intermediate, hidden], "BF16"
        yield prefix + "down_proj.weight", [hidden, intermediate], "BF16"

    def layer(index):
        prefix = "model.layers.%d." % index
        yield prefix + "input_layernorm.weight", [hidden], "BF16"
        attention = prefix + "self_attn."
        yield attention + "q_a_proj.weight", [1536, hidden], "BF16"
        yield attention + "q_a_layernorm.weight", [1536], "BF16"
        yield attention + "q_b_proj.weight", [heads * (128 + 64), 1536], "BF16"
        yield attention + "kv_a_proj_with_mqa.weight", [512 + 64, hidden], "BF16"
        yield attention + "kv_a_layernorm.weight", [512], "BF16"
        yield attention + "kv_b_proj.weight", [heads * (128 + 128), 512], "BF16"
        yield attention + "o_proj.weight", [hidden, heads * 128], "BF16"
        yield prefix + "post_attention_layernorm.weight", [hidden], "BF16"
        if index < dense_layers:
            yield from feed_forward(prefix + "mlp.", 18432)
            return
        yield prefix + "mlp.gate.weight", [experts, hidden], "BF16"
        yield prefix + "mlp.gate.e_score_correction_bias", [experts], "F32"
        for expert in range(experts):
            yield from feed_forward(prefix + "mlp.experts.%d." % expert, 2048)
        yield from feed_forward(prefix + "mlp.shared_experts.", 2048)

    def tensors():
        yield "model.embed_tokens.weight", [vocab, hidden], "BF16"
        for index in range(layers):
            yield from layer(index)
        yield from layer(layers)
        prediction = "model.layers.%d." % layers
        yield prediction + "embed_tokens.weight", [vocab, hidden], "BF16"
        yield prediction + "enorm.weight", [hidden], "BF16"
        yield prediction + "hnorm.weight", [hidden], "BF16"
        yield prediction + "eh_proj.weight", [hidden, 2 * hidden], "BF16"
        yield prediction + "shared_head.norm.weight", [hidden], "BF16"
        yield prediction + "shared_head.head.weight", [vocab, hidden], "BF16"
        yield "model.norm.weight", [hidden], "BF16"
        yield "lm_head.weight", [vocab, hidden], "BF16"

    return config, list(tensors()), num_files


def deepseek_v3_fp8(**sizes):
    config, tensors, num_files = deepseek_v3(**sizes)
    config["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}

    def quantised():
        for name, shape, dtype in tensors:
            if "_proj" in name and "eh_proj" not in name:
                yield name, shape, "F8_E4M3"
                yield name + "_scale_inv", [-(-extent // 128) for extent in shape], "F32"
            else:
                yield name, shape, dtype

    return config, list(quantised()), num_files


def mixtral_8x22b(layers=56, experts=8, vocab=32000, ties_head=False, num_files=59):
    hidden, intermediate, heads, kv_heads = 6144, 16384, 48, 8
    config = {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": hidden, "initializer_range": 0.02, "intermediate_size": intermediate, "max_position_embeddings": 65536,
        "num_attention_heads": heads, "num_experts_per_tok": 2, "num_hidden_layers": layers, "num_key_value_heads": kv_heads,
        "num_local_experts": experts, "output_router_logits": False, "rms_norm_eps": 1e-05, "rope_theta": 1000000, "router_aux_loss_coef": 0.001,
        "sliding_window": None, "tie_word_embeddings": ties_head, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": vocab,
    }

    def tensors():
        yield "model.embed_tokens.weight", [vocab, hidden], "BF16"
        for index in range(layers):
            prefix = "model.layers.%d." % index
            yield prefix + "input_layernorm.weight", [hidden], "BF16"
            for name, rows, columns in (("q", heads * 128, hidden), ("k", kv_heads * 128, hidden), ("v", kv_heads * 128, hidden),
                                        ("o", hidden, heads * 128)):
                yield prefix + "self_attn.%s_proj.weight" % name, [rows, columns], "BF16"
            yield prefix + "post_attention_layernorm.weight", [hidden], "BF16"
            yield prefix + "block_sparse_moe.gate.weight", [experts, hidden], "BF16"
            for expert in range(experts):
                for name, rows, columns in (("w1", intermediate, hidden), ("w2", hidden, intermediate), ("w3", intermediate, hidden)):
                    yield prefix + "block_sparse_moe.experts.%d.%s.weight" % (expert, name), [rows, columns], "BF16"
        yield "model.norm.weight", [hidden], "BF16"
        if not ties_head:
            yield "lm_head.weight", [vocab, hidden], "BF16"

    return config, list(tensors()), num_files


def deepseek_v3_fp8_slice():
    """Few layers, experts and tokens; every shape of a layer as it is."""
    return deepseek_v3_fp8(layers=2, dense_layers=1, experts=16, vocab=8192, num_files=3)


def mixtral_8x22b_slice():
    """One layer, and an embedding of more than 2^31 elements."""
    return mixtral_8x22b(layers=1, experts=2, vocab=349600, ties_head=True, num_files=2)


def mixtral_8x22b_huge():
    """An embedding of more than 2^32 elements."""
    return mixtral_8x22b(layers=1, experts=2, vocab=699200, ties_head=True, num_files=2)


MODELS = {"deepseek-v3": deepseek_v3, "deepseek-v3-fp8": deepseek_v3_fp8, "mixtral-8x22b": mixtral_8x22b,
          "deepseek-v3-fp8-slice": deepseek_v3_fp8_slice, "mixtral-8x22b-slice": mixtral_8x22b_slice, "mixtral-8x22b-huge": mixtral_8x22b_huge}


def size_bytes(shape, dtype):
    count = ELEMENT_BYTES[dtype]
    for extent in shape:
        count *= extent
    return count


def write_sparse_file(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, dtype in tensors:
        end = offset + size_bytes(shape, dtype)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


def write_checkpoint(model, directory):
    """Returns the number of bytes that the tensors would have."""
    config, tensors, num_files = MODELS[model]()
    os.makedirs(directory, exist_ok=True)
    total = sum(size_bytes(shape, dtype) for _, shape, dtype in tensors)
    parts, so_far = [[] for _ in range(num_files)], 0
    for tensor in tensors:
        parts[so_far * num_files // total].append(tensor)
        so_far += size_bytes(tensor[1], tensor[2])
    weight_map = {}
    for index, part in enumerate(parts):
        name = "model-%05d-of-%06d.safetensors" % (index + 1, num_files)
        write_sparse_file(os.path.join(directory, name), part)
        weight_map.update((tensor[0], name) for tensor in part)
    for name, value in (("config.json", config), ("model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("out")
    arguments = parser.parse_args()
    print("%s: %.1f GB of tensors" % (arguments.out, write_checkpoint(arguments.model, arguments.out) / 1e9))


if __name__ == "__main__":
    main()
