#include "exec/orthogonal_rows.h"

#include <algorithm>
#include <cmath>

#include "exec/lane_sum.h"
#include "moeweld/base/random.h"

namespace moeweld::exec {

std::vector<double> orthogonal_rows(const plan::Slot& slot, std::uint64_t seed, int threads) {
  const std::size_t width = slot.shape.at(1);
  const std::size_t count = slot.rows_per_layer();
  std::vector<double> result(num_elements(slot.shape));
#pragma omp parallel for schedule(dynamic, 1) num_threads(std::max(1, threads))
  for (std::size_t group = 0; group < slot.layers.size(); ++group) {
    const std::span<double> rows(result.data() + group * count * width, count * width);
    fill_normal({seed, stream_id("router rows (orthogonal)/" + std::to_string(slot.layers[group]))}, 0, rows);
    for (std::size_t i = 0; i < count; ++i) {
      const std::span<double> row = rows.subspan(i * width, width);
      for (int round = 0; round < 2; ++round) {
        for (std::size_t j = 0; j < i; ++j) {
          const std::span<const double> other = rows.subspan(j * width, width);
          const double along = lane_dot(row, other);
          for (std::size_t k = 0; k < width; ++k) row[k] -= along * other[k];
        }
        const double norm = std::sqrt(lane_dot(row, row));
        for (double& value : row) value /= norm;
      }
    }
  }
  return result;
}

}  // namespace moeweld::exec
