#pragma once
/// Forward pass of a decoder-only transformer, streamed layer by layer: weights in their stored type, activations in float32.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "moeweld/base/peers.h"
#include "moeweld/model/transformer.h"
#include "moeweld/storage/storage.h"

namespace moeweld::infer {

using TokenIds = std::vector<std::int64_t>;

/// A sequence on its way through the layers. The same values on every rank.
struct SequenceView {
  std::size_t layer = 0;
  std::size_t sequence = 0;       ///< index into forward()'s sequences
  std::size_t num_tokens = 0;     ///< never padding
  std::span<const float> hidden;  ///< [num_tokens, hidden_size], row-major; valid during the call
};
using Observer = std::function<void(const SequenceView&)>;

struct ForwardOptions {
  std::uint64_t memory_limit_bytes = std::uint64_t{2} << 30;
  int threads = 1;
  IoMode io = IoMode::kAuto;
  bool want_logits = false;       ///< likelihoods and predictions: the head is read too
  bool want_last_logits = false;  ///< SequenceResult::last_logits as well
  Observer on_layer_input;        ///< the residual stream that enters a layer, before its norm; within a layer, sequences in order
  Observer on_router_input;       ///< after attention and post-attention norm: what the FFN or the router sees
  /// Before each layer of each pass over the weights, on every rank; may throw to end the run.
  std::function<void(std::size_t step, std::size_t num_steps)> on_step;
};

/// What the head says of one sequence of n tokens.
struct SequenceResult {
  std::vector<double> log_likelihoods;    ///< of tokens 2..n, natural logarithm, in float64
  std::vector<std::int64_t> predictions;  ///< after each token, the most likely next one, lowest id among equals; the last is what follows
  double prediction_probability = 0;      ///< of predictions.back()
  std::vector<float> last_logits;         ///< [vocabulary] after the last token
  bool is_finite = true;                  ///< all logits of all positions
};

struct ForwardReport {
  std::vector<SequenceResult> sequences;     ///< empty unless want_logits
  std::int64_t first_non_finite_layer = -1;  ///< whose output first held NaN or infinity; -1: none
  std::uint64_t num_tokens = 0;
  std::uint64_t num_passes = 0;  ///< how often the weights were read: 1 where activations of all sequences fit the memory limit
  std::uint64_t read_bytes = 0;  ///< by all ranks together
  double seconds = 0;
  std::string blas_core;
};

/// Rows of a weight matrix that one BLAS call multiplies, and tokens: fixed, since an element's last bits depend on the shape of the call
/// that computes it.
constexpr std::uint64_t kRowTile = 128;
constexpr std::uint64_t kTokenTile = 256;

/// What each rank needs at least: the largest of the packs that sequences form, alone.
std::uint64_t minimum_forward_bytes(const model::Transformer& model, std::span<const TokenIds> sequences, const ForwardOptions& options,
                                    int num_ranks);

/// Runs every sequence through the model. Weights are divided by output rows over all ranks, each row read by one rank; activations are
/// gathered, so every rank has them all. Sequences are packed without padding. Results are the same bits for any number of ranks and
/// threads and any memory limit, on one BLAS core. MoE: only experts that tokens are routed to are read.
/// Collective; all arguments but the callbacks' effects are the same on all ranks. Throws the same Error on every rank: kInvalidInput (an
/// id outside the vocabulary, an empty sequence, a changed file), kUsage (a sequence does not fit the memory limit), kIo, kPeerFailed.
ForwardReport forward(Peers& peers, Storage& storage, const model::Transformer& model, std::span<const TokenIds> sequences,
                      const ForwardOptions& options);

}  // namespace moeweld::infer
