#include "infer/product.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>
#include <exception>

#include "moeweld/base/checked.h"
#include "moeweld/base/trace.h"
#include "moeweld/merge/decode.h"

namespace moeweld::infer {

void multiply_tile(const model::Weight& weight, const std::byte* rows, std::uint64_t num_rows, const ProductInput& input,
                   std::vector<float>& decoded, float* result, std::uint64_t stride) {
  decoded.resize(kRowTile * kDepthTile);
  const std::size_t element_bytes = moeweld::size_bytes(weight.dtype);
  for (std::uint64_t depth = 0; depth < weight.columns; depth += kDepthTile) {
    const std::uint64_t width = std::min(kDepthTile, weight.columns - depth);
    for (std::uint64_t row = 0; row < num_rows; ++row) {
      merge::decode_elements(weight.dtype, rows + row * weight.row_bytes() + depth * element_bytes,
                             std::span(decoded.data() + row * width, width));
    }
    for (const TokenTile& tile : input.tiles) {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, checked_cast<int>(tile.end - tile.begin), checked_cast<int>(num_rows),
                  checked_cast<int>(width), 1.0F, input.x + tile.begin * input.stride + depth, checked_cast<int>(input.stride),
                  decoded.data(), checked_cast<int>(width), depth == 0 ? 0.0F : 1.0F, result + tile.begin * stride,
                  checked_cast<int>(stride));
    }
  }
}

ProductLoop::ProductLoop(WeightStream& stream, int threads)
    : stream_(stream), threads_(threads), scratch_(static_cast<std::size_t>(threads)) {}

void ProductLoop::run(std::span<const RowRange> ranges, const std::function<void(std::uint32_t)>& begin_group, const Use& use) {
  for (const RowRange& range : ranges) {
    if (range.begin == range.end) continue;
    begin_group(range.group);
    for (std::uint64_t done = range.begin; done < range.end;) {
      LoadedRows loaded = stream_.take();
      const std::uint64_t begin = loaded.rows.begin;
      const std::uint64_t end = loaded.rows.end;
      const auto num_tiles = static_cast<std::int64_t>((end - begin + kRowTile - 1) / kRowTile);
      std::exception_ptr failure;
#pragma omp parallel num_threads(threads_)
      {
        const trace::Span span(trace::Kind::kCombine, "multiply");
#pragma omp for schedule(dynamic, 1) nowait
        for (std::int64_t index = 0; index < num_tiles; ++index) {
          try {
            RowRange tile = loaded.rows;
            tile.begin = begin + static_cast<std::uint64_t>(index) * kRowTile;
            tile.end = std::min(end, tile.begin + kRowTile);
            const std::byte* first = loaded.first + (tile.begin - begin) * tile.weight.row_bytes();
            const std::byte* second = loaded.second == nullptr ? nullptr : loaded.second + (tile.begin - begin) * tile.second.row_bytes();
            use(tile, first, second, scratch_[static_cast<std::size_t>(omp_get_thread_num())]);
          } catch (...) {
#pragma omp critical(moeweld_infer_failure)
            failure = std::current_exception();
          }
        }
      }
      stream_.release(std::move(loaded));
      if (failure) std::rethrow_exception(failure);
      done = end;
    }
  }
}

}  // namespace moeweld::infer
