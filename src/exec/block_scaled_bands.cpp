#include "exec/block_scaled_bands.h"

#include <omp.h>

#include <algorithm>

#include "moeweld/base/thread_team.h"
#include "moeweld/merge/block_scales.h"

namespace moeweld::exec {

namespace {

/// Columns of one thread's share: a few blocks, so that no two threads have parts of one.
constexpr std::uint64_t kColumnsAtOnce = 4 * kScaleBlock;

}  // namespace

std::vector<float> BlockScaledBands::compute(const merge::MethodRow& method, const merge::Task& task, const merge::Decisions& decisions,
                                             const merge::Elements& elements) {
  const std::uint64_t columns = task.shape.at(1);
  const std::uint64_t rows = elements.num_elements / columns;
  values_.resize(elements.num_elements);
  codes_.resize(elements.num_elements);
  merge::apply_elements(method, task, decisions, elements, reinterpret_cast<std::byte*>(values_.data()));
  std::vector<float> scales(merge::num_scale_blocks(columns), 0.0F);
  for_each_index(omp_get_max_threads(), (columns + kColumnsAtOnce - 1) / kColumnsAtOnce, [&](std::size_t part, std::size_t) {
    const std::uint64_t first = part * kColumnsAtOnce;
    const std::uint64_t count = std::min(kColumnsAtOnce, columns - first);
    const auto row_values = [&](std::uint64_t row) { return std::span(values_).subspan(row * columns + first, count); };
    for (std::uint64_t row = 0; row < rows; ++row) merge::raise_block_maxima(row_values(row), first, scales.data());
    for (std::uint64_t block = first / kScaleBlock; block < merge::num_scale_blocks(first + count); ++block) {
      scales[block] = merge::block_scale(scales[block]);
    }
    for (std::uint64_t row = 0; row < rows; ++row) {
      merge::encode_block_scaled(row_values(row), first, scales.data(), codes_.data() + row * columns + first);
    }
  });
  return scales;
}

}  // namespace moeweld::exec
