#pragma once
/// What a tensor is called, whatever the file calls it.

#include <compare>
#include <cstdint>
#include <string>

namespace moeweld::model {

/// Canonical key. `role` is a word for tensors that a family table knows ("attention_q", "expert_gate_proj", "router", "token_embedding",
/// "lm_head", …); for all others the name on disk with its layer index replaced: "model.encoder.layers.{layer}.fc1.weight". So roles are
/// equal exactly when tensors mean the same.
struct TensorKey {
  int layer = -1;   ///< -1: belongs to no layer
  int expert = -1;  ///< -1: belongs to no expert
  std::string role;

  auto operator<=>(const TensorKey&) const = default;
};

/// Where a tensor without a layer goes when a model is built from slices: with the first slice's sources or the last one's.
enum class Place : std::uint8_t { kBeforeLayers, kLayer, kAfterLayers };

}  // namespace moeweld::model
