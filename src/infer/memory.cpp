#include "infer/memory.h"

#include <algorithm>

#include "infer/head.h"
#include "infer/product.h"
#include "moeweld/base/checked.h"

namespace moeweld::infer {
namespace {

/// The program itself, allocator slack, OpenBLAS's packing buffers of one thread (measured: 2.3 MiB touched), a thread's stack.
constexpr std::uint64_t kProgramBytes = 24 * kMiB;
constexpr std::uint64_t kThreadBytes = 6 * kMiB;
constexpr std::size_t kNumBuffers = 3;
constexpr std::uint64_t kPreferredBufferBytes = 8 * kMiB;
constexpr std::uint64_t kQueriesAtOnce = 64;

std::uint64_t tile_bytes(const model::Weight& weight, std::uint64_t at_once = 1) {
  return std::min(kRowTile, weight.rows) * weight.value_row_bytes() * at_once;
}

std::uint64_t largest_tile(const model::Transformer& model) {
  std::uint64_t largest = tile_bytes(model.head);
  const auto add_ffn = [&](const model::GatedFfn& ffn) {
    largest = std::max({largest, tile_bytes(ffn.gate) + tile_bytes(ffn.up), tile_bytes(ffn.down)});
  };
  for (const model::TransformerLayer& layer : model.layers) {
    for (const model::Weight* weight : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.router, &layer.shared_gate})
      largest = std::max(largest, tile_bytes(*weight));
    add_ffn(layer.ffn);
    for (const model::GatedFfn& expert : layer.experts) add_ffn(expert);
  }
  return largest;
}

/// float32 numbers for one token while a layer's FFN runs, beside the residual stream, its norm and the result.
std::uint64_t ffn_floats(const model::Transformer& model, const model::TransformerLayer& layer) {
  if (!layer.router.is_present()) return layer.ffn.gate.rows;
  std::uint64_t width = 0;
  for (const model::GatedFfn& expert : layer.experts) width = std::max(width, expert.gate.rows);
  // Front plane and its copy of the logits, routed inputs (all tokens may go to one expert), inner activations.
  return layer.ffn.gate.rows + 2 * layer.router.rows + 1 + model.hidden_size + width * model.experts_per_token +
         8 * model.experts_per_token;
}

}  // namespace

MemoryPlan plan_memory(const model::Transformer& model, const ForwardOptions& options, int num_ranks, std::size_t num_sequences) {
  MemoryPlan plan;
  const auto threads = static_cast<std::uint64_t>(options.threads);
  const std::uint64_t tile = largest_tile(model);
  // A tile for each thread at least, where the limit allows.
  const std::uint64_t wanted = std::max(kPreferredBufferBytes, threads * tile);
  const std::uint64_t allowed = options.memory_limit_bytes / (4 * kNumBuffers);
  plan.buffer_bytes = WeightStream::buffer_bytes_for(std::max(tile, std::min(wanted, allowed)));
  plan.num_buffers = kNumBuffers;

  std::uint64_t attention = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim + model.num_heads * model.head_dim;
  std::uint64_t widest = attention;
  std::uint64_t small = model.hidden_size;
  for (const model::TransformerLayer& layer : model.layers) {
    widest = std::max(widest, ffn_floats(model, layer));
    for (const model::Weight* weight : {&layer.input_norm, &layer.post_attention_norm, &layer.q_bias, &layer.k_bias, &layer.v_bias,
                                        &layer.o_bias, &layer.ffn.gate_bias, &layer.ffn.up_bias, &layer.ffn.down_bias})
      small += weight->columns;
  }
  const std::uint64_t head_tiles = (model.vocabulary_size + kRowTile - 1) / kRowTile;
  // Stream, norm, result, embeddings as they arrive; the widest stage, and what is exchanged of it.
  std::uint64_t floats = 4 * model.hidden_size + widest * (num_ranks > 1 ? 3 : 1) + 2 * threads * kRowTile;
  plan.bytes_per_token = floats * sizeof(float);
  if (options.want_logits) plan.bytes_per_token += head_tiles * sizeof(HeadPartial) * 2 + 128;
  plan.bytes_per_position = model.rope.rotary_dim * sizeof(float) + threads * kQueriesAtOnce * sizeof(float);
  plan.fixed_bytes = kProgramBytes + threads * (kThreadBytes + kRowTile * kDepthTile * sizeof(float)) +
                     plan.num_buffers * plan.buffer_bytes + 2 * small * sizeof(float);
  // Codes of FP8 before they become float32.
  const bool has_scales = std::any_of(model.layers.begin(), model.layers.end(), [](const model::TransformerLayer& layer) {
    return layer.o.scales.columns != 0 || layer.ffn.down.scales.columns != 0 ||
           (!layer.experts.empty() && layer.experts.front().down.scales.columns != 0);
  });
  if (has_scales) plan.fixed_bytes += plan.buffer_bytes / 2;
  if (options.want_last_logits) plan.fixed_bytes += num_sequences * model.vocabulary_size * sizeof(float) * (num_ranks > 1 ? 3 : 2);
  return plan;
}

}  // namespace moeweld::infer
