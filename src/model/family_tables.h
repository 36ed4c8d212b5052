#pragma once
/// The parts that family tables are put together from.

#include <initializer_list>
#include <vector>

#include "moeweld/model/family.h"

namespace moeweld::model {

using Rows = std::vector<TensorRow>;

std::vector<Family> dense_families();     ///< llama, mistral, qwen2, qwen3
std::vector<Family> mixture_families();   ///< mixtral, qwen2_moe, qwen3_moe, olmoe, phimoe, minimax_m2
std::vector<Family> deepseek_families();  ///< deepseek, deepseek_v2, deepseek_v3, glm4_moe
std::vector<Family> granite_families();   ///< granite, granitemoe, granitemoeshared

/// A row of each layer: `ending` is what stands after "model.layers.{layer}.".
const TensorRow& input_norm();
const TensorRow& post_attention_norm();
const Rows& attention();         ///< q, k, v, o
const Rows& input_biases();      ///< of q, k and v
const Rows& attention_biases();  ///< of q, k, v and o, none needed
const Rows& head_norms();        ///< q_norm and k_norm
const Rows& dense_ffn();         ///< mlp.{gate,up,down}_proj

/// The rows, none of which must be there.
Rows optional(Rows rows);
/// The rows, in these layers only.
Rows in_layers(Layers layers, Rows rows);
/// The rows with a need that a key of config.json decides.
Rows with_need(Need need, std::string_view key, Rows rows);

/// Embedding, layers, final norm, head.
Rows decoder(std::initializer_list<Rows> layer_parts);

/// mlp.gate, mlp.experts.N.{gate,up,down}_proj in sparse layers: what most families call them.
const Rows& experts();
/// The same as Mixtral names them: block_sparse_moe.gate, experts.N.w1 (gate), w2 (down), w3 (up).
const Rows& block_sparse_experts();
/// mlp.experts.gate_up_proj and down_proj.
std::vector<FusedRow> fused_experts();

/// A family whose model_type is its name.
Family make_family(std::string_view name, std::vector<std::string_view> architectures, Rows rows);

}  // namespace moeweld::model
