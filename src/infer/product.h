#pragma once
/// Matrix products of weights in their stored type with float32 activations, in tiles of fixed shape.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "infer/packing.h"
#include "infer/weight_stream.h"

namespace moeweld::infer {

/// Columns of a weight that are decoded at a time: with kRowTile rows 1 MiB of float32.
constexpr std::uint64_t kDepthTile = 2048;

/// What a thread needs besides the activations.
struct TileScratch {
  std::vector<float> decoded;  ///< kRowTile x kDepthTile
  std::vector<float> first;    ///< [tokens, kRowTile]: the product, when it does not go to its place at once
  std::vector<float> second;
};

/// Activations that weights are multiplied with: rows x, row t at x + t * stride, `tiles` cover them.
struct ProductInput {
  const float* x = nullptr;
  std::uint64_t stride = 0;
  std::span<const TokenTile> tiles;
  std::uint64_t num_tokens() const { return tiles.empty() ? 0 : tiles.back().end; }
};

/// result[t * stride + r] = Σ_c weight[r][c] · x[t][c] for num_rows <= kRowTile rows of a weight that begin at `rows`. Every element is the
/// same bits whichever thread computes it: one BLAS call per token tile and depth tile, summed in depth order.
void multiply_tile(const model::Weight& weight, const std::byte* rows, std::uint64_t num_rows, const ProductInput& input,
                   std::vector<float>& decoded, float* result, std::uint64_t stride);

/// Takes the ranges that were pushed (this rank's share of one stage, in order), and calls `use` for each row tile, on any thread.
/// use(loaded rows' range restricted to the tile, pointer to its first weight's rows, to its second's, scratch). `begin_group` is called
/// before the first tile of each group, from the calling thread. What `use` throws is rethrown after the parallel region.
class ProductLoop {
 public:
  ProductLoop(WeightStream& stream, int threads);
  using Use = std::function<void(const RowRange& tile, const std::byte* first, const std::byte* second, TileScratch& scratch)>;
  void run(std::span<const RowRange> ranges, const std::function<void(std::uint32_t group)>& begin_group, const Use& use);

 private:
  WeightStream& stream_;
  int threads_;
  std::vector<TileScratch> scratch_;
};

}  // namespace moeweld::infer
