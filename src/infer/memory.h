#pragma once
/// What a batch needs, so that a forward pass stays within its limit.

#include "infer/packing.h"
#include "moeweld/model/transformer.h"

namespace moeweld::infer {

/// Sizes of one rank's buffers.
struct MemoryPlan {
  std::uint64_t buffer_bytes = 0;  ///< of one weight buffer
  std::size_t num_buffers = 0;
  std::uint64_t fixed_bytes = 0;         ///< weight buffers, threads, small weights, the rest of the program
  std::uint64_t bytes_per_token = 0;     ///< of a batch
  std::uint64_t bytes_per_position = 0;  ///< of the longest sequence: rotary tables and attention scores

  std::uint64_t batch_bytes(std::uint64_t num_tokens, std::uint64_t longest) const {
    return fixed_bytes + num_tokens * bytes_per_token + longest * bytes_per_position;
  }
};

MemoryPlan plan_memory(const model::Transformer& model, const ForwardOptions& options, int num_ranks, std::size_t num_sequences);

}  // namespace moeweld::infer
