#pragma once
/// Block-scaled FP8: which tensor holds the scales of which weight.

#include <cstdint>
#include <unordered_map>
#include <unordered_set>

#include "moeweld/base/error.h"
#include "moeweld/formats/checkpoint.h"

namespace moeweld::model {

/// Indices into Checkpoint::tensors.
struct BlockScales {
  std::unordered_map<std::uint32_t, std::uint32_t> of_weight;
  std::unordered_set<std::uint32_t> is_scale;
  bool is_announced = false;  ///< config.json has a quantization_config of "fp8"
};

/// N_scale_inv (as a rule X.weight_scale_inv) holds the scales of the tensor N of F8_E4M3, X.scale those of X.weight. Missing, misshapen
/// and ownerless scales and other block sizes than 128 x 128 go to `problems`. A checkpoint of F8_E4M3 weights that has no scale at all and
/// no quantization_config of "fp8" has none to miss: its weights are their codes' values.
BlockScales pair_block_scales(const formats::Checkpoint& checkpoint, ProblemList& problems);

}  // namespace moeweld::model
