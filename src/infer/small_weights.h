#pragma once
/// Norm weights and biases of all layers: rank 0 reads them once, all ranks keep them as float32.

#include <vector>

#include "infer/weight_stream.h"
#include "moeweld/base/peers.h"
#include "moeweld/model/transformer.h"

namespace moeweld::infer {

/// Empty where the model has none.
struct LayerVectors {
  std::vector<float> input_norm, post_attention_norm;
  std::vector<float> q_bias, k_bias, v_bias, o_bias;
  std::vector<float> q_norm, k_norm;
  std::vector<float> gate_bias, up_bias, down_bias;
};

struct SmallWeights {
  std::vector<LayerVectors> layers;
  std::vector<float> final_norm;
  std::uint64_t read_bytes = 0;  ///< of the files
};

/// Collective.
SmallWeights read_small_weights(Peers& peers, ModelFiles& files, const model::Transformer& model);

/// Embeddings of all ids, [ids, hidden], times the model's multiplier: each row that occurs is read by one rank. Collective.
struct Embeddings {
  std::vector<float> rows;
  std::uint64_t read_bytes = 0;  ///< by this rank
};
Embeddings read_embeddings(Peers& peers, ModelFiles& files, const model::Transformer& model, std::span<const std::int64_t> ids);

}  // namespace moeweld::infer
