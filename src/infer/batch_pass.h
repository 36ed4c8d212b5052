#pragma once
/// One batch of sequences through all layers.

#include <optional>

#include "infer/attention.h"
#include "infer/product.h"
#include "infer/rotary.h"
#include "infer/routing.h"
#include "infer/shares.h"
#include "infer/small_weights.h"

namespace moeweld::infer {

/// What all passes over the weights share.
struct PassContext {
  Peers& peers;
  const model::Transformer& model;
  const SmallWeights& vectors;
  std::span<const TokenIds> sequences;
  const ForwardOptions& options;
  ModelFiles& files;
};

class BatchPass {
 public:
  BatchPass(const PassContext& context, const Batch& batch, WeightStream& stream, std::size_t first_step, std::size_t num_steps);

  /// Collective. Fills `report.sequences` of the batch's members and first_non_finite_layer.
  void run(ForwardReport& report);
  std::uint64_t extra_read_bytes() const { return extra_read_bytes_; }

 private:
  using Stage = std::vector<std::vector<Piece>>;
  const std::vector<RowRange>& mine(const StageShares& shares) const {
    return shares.ranges_of_rank[static_cast<std::size_t>(context_.peers.rank())];
  }
  void push(const StageShares& shares);
  void push_static_from(std::size_t layer);
  StageShares query_key_value_shares(const model::TransformerLayer& layer) const;
  StageShares output_shares(const model::TransformerLayer& layer) const;
  StageShares ffn_in_shares(const model::TransformerLayer& layer) const;
  StageShares down_shares(const model::TransformerLayer& layer) const;
  StageShares head_shares() const;

  void observe(const Observer& observer, std::size_t layer, const Plane& plane);
  void attention_block(std::size_t layer);
  void rotate(std::size_t layer, Plane& qkv) const;
  void dense_ffn(std::size_t layer, Plane& result);
  void sparse_ffn(std::size_t layer, Plane& result);
  Plane expert_activations(const model::TransformerLayer& layer, std::span<const ExpertLoad> loads);
  /// gate and up of one tile → act(gate) · up in `target`, at column tile.begin.
  void gated_tile(const RowRange& tile, const std::byte* gate, const std::byte* up, const ProductInput& input, const LayerVectors* biases,
                  TileScratch& scratch, float* target, std::uint64_t stride) const;

  PassContext context_;
  const model::Transformer& model_;
  const Batch& batch_;
  WeightStream& stream_;
  ProductLoop loop_;
  AttentionShares attention_shares_;
  std::vector<RotaryTable> tables_;
  std::vector<std::size_t> table_of_member_;
  Plane hidden_;  ///< the residual stream
  Plane normed_;
  std::size_t first_step_;
  std::size_t num_steps_;
  std::uint64_t extra_read_bytes_ = 0;
};

}  // namespace moeweld::infer
