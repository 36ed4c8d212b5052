#pragma once
/// config.json of a mixture that is assembled from dense models.

#include <cstdint>
#include <string>
#include <vector>

#include "moeweld/formats/json.h"
#include "moeweld/model/family.h"

namespace moeweld::model {

struct AssembledShape {
  std::uint64_t num_experts = 0;
  std::uint64_t experts_per_token = 0;
  std::uint64_t expert_width = 0;   ///< rows of an expert's gate matrix
  std::uint64_t shared_width = 0;   ///< of all shared experts together; 0: none
  bool shared_gated = false;        ///< the shared expert has a gate of its own
  std::vector<bool> sparse_layers;  ///< one for each layer; the others keep the base's FFN
};

/// What becomes of the base's rope scaling.
enum class RopeMode : std::uint8_t {
  kKeep,
  kFoldTheta,  ///< theta x factor of a linear scaling: an approximation
  kNtk,        ///< theta x factor^(d/(d-2)), d the rotary dimension, of a linear or dynamic scaling
};

/// Families that are assembled: mixtral, qwen2_moe, qwen3_moe, deepseek, granitemoeshared; and whether one is made of dense models of
/// `source`: mixtral, deepseek and granitemoeshared of llama and mistral, qwen2_moe of those and qwen2, qwen3_moe of qwen3.
bool is_assembled_from(const Family& output, const Family& source);

/// The fields of config.json by which a reader of `output` takes exactly these layers as sparse: decoder_sparse_step and mlp_only_layers,
/// or first_k_dense_replace and moe_layer_freq; none for a family in which all layers are. Throws Error(kUnsupported) for sets that the
/// family cannot express, and where no layer is sparse.
formats::Json sparse_layer_fields(const Family& output, const std::vector<bool>& sparse_layers);

/// Every field that changes results is written explicitly, with the base family's default where the base says nothing: head_dim, rope in
/// the older form, sliding window, norm_topk_prob true, qkv_bias, attention_multiplier 1/sqrt(head_dim) and other multipliers 1, and so on.
/// A Qwen2-MoE has q, k and v biases always: zeros where the base has none. dtype and tie_word_embeddings are the base's; the caller knows
/// better. Throws Error with all problems: kUnsupported for what the output family cannot hold and would change results (attention_bias,
/// mlp_bias, head_dim, sliding window, partial rotary, other activations, layers, shared experts, rope that cannot be folded),
/// kInvalidInput for fields without meaning. What is left out without changing results is in `notes`.
formats::Json assembled_config(const Family& output, const formats::Json& dense_base, const AssembledShape& shape, RopeMode rope,
                               std::vector<std::string>& notes);

/// Which readers need which mode, for a base with rope scaling; empty for one without.
std::string rope_warning(const formats::Json& dense_base, RopeMode rope);

}  // namespace moeweld::model
