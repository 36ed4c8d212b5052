#include "moeweld/merge/statistics.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "merge/kernels/value_sums.h"
#include "merge/tiles.h"
#include "moeweld/base/thread_team.h"
#include "moeweld/base/trace.h"

namespace moeweld::merge {

namespace {

bool all_finite(const double* values, std::size_t num) {
  std::array<double, kSumLanes> sums{};  // 0·x is NaN exactly where x is not finite
  for (std::size_t i = 0; i < num; ++i) sums[i % kSumLanes] += 0 * values[i];
  return fold_lanes(sums) == 0;
}

double largest(const LaneSums& lanes) { return *std::max_element(lanes.begin(), lanes.end()); }

class CellSum {
 public:
  explicit CellSum(const StatisticsTask& task)
      : task_(task),
        num_values_(task.num_values()),
        // The values, then zeros for what is compared with nothing, then bounds.
        tiles_(hwy::AllocateAligned<double>((num_values_ + 3) * kTileElements)),
        lanes_(num_values_) {
    std::fill_n(zeros(), kTileElements, 0.0);
    sums_.values.resize(num_values_);
  }

  StatisticsSums run(const Elements& cell) {
    sums_.elements = cell.num_elements;
    for_padded(task_.values, cell, nullptr, 0, [&](const Elements& part, std::size_t, std::byte*) {
      for (std::size_t offset = 0; offset < part.num_elements; offset += kTileElements) {
        const std::size_t num = std::min(kTileElements, part.num_elements - offset);
        for (std::size_t i = 0; i < num_values_; ++i) {
          const DType dtype = task_.values.inputs[i].dtype;
          decode(dtype, part.inputs[i] + offset * size_bytes(dtype), num, tile(i));
        }
        leave_out_non_finite(num);
        add_tile(num);
      }
    });
    for (std::size_t i = 0; i < num_values_; ++i) {
      ValueSums& value = sums_.values[i];
      value.squares = fold_lanes(lanes_[i].squares);
      value.max_absolute = largest(lanes_[i].max_absolute);
      if (task_.reference < 0) continue;
      value.dot = fold_lanes(lanes_[i].dot);
      value.squared_difference = fold_lanes(lanes_[i].squared_difference);
    }
    return std::move(sums_);
  }

 private:
  double* tile(std::size_t i) { return tiles_.get() + i * kTileElements; }
  double* zeros() { return tile(num_values_); }
  double* lowest() { return tile(num_values_ + 1); }
  double* highest() { return tile(num_values_ + 2); }
  double* reference() { return task_.reference < 0 ? zeros() : tile(static_cast<std::size_t>(task_.reference)); }

  void leave_out_non_finite(std::size_t num) {
    bool finite = true;
    for (std::size_t i = 0; i < num_values_; ++i) finite = finite && all_finite(tile(i), num);
    if (finite) return;
    for (std::size_t k = 0; k < num; ++k) {
      bool left_out = false;
      for (std::size_t i = 0; i < num_values_; ++i) {
        if (std::isfinite(tile(i)[k])) continue;
        left_out = true;
        ++sums_.values[i].non_finite;
      }
      if (!left_out) continue;
      ++sums_.left_out;
      for (std::size_t i = 0; i < num_values_; ++i) tile(i)[k] = 0;
    }
  }

  void add_tile(std::size_t num) {
    const double* base = task_.has_base ? reference() : zeros();
    std::fill_n(lowest(), num, 0.0);
    std::fill_n(highest(), num, 0.0);
    for (std::size_t i = 0; i < num_values_; ++i) {
      add_values(tile(i), reference(), num, lanes_[i]);
      const bool is_base = task_.has_base && static_cast<int>(i) == task_.reference;
      if (i + 1 < num_values_ && !is_base) widen_bounds(tile(i), base, num, lowest(), highest());
    }
    const double* output = tile(num_values_ - 1);
    for (std::size_t k = 0; k < num; ++k) {
      sums_.sign_conflicts += lowest()[k] < 0 && highest()[k] > 0 ? 1 : 0;
      sums_.kept += output[k] != base[k] ? 1 : 0;
    }
  }

  const StatisticsTask& task_;
  const std::size_t num_values_;
  const hwy::AlignedFreeUniquePtr<double[]> tiles_;
  std::vector<ValueLanes> lanes_;
  StatisticsSums sums_;
};

}  // namespace

StatisticsSums sum_cell(const StatisticsTask& task, const Elements& cell) { return CellSum(task).run(cell); }

std::vector<StatisticsSums> sum_cells(const StatisticsTask& task, const Elements& elements) {
  std::vector<StatisticsSums> result(num_cells(elements.num_elements));
  for_each_index(omp_get_max_threads(), result.size(), [&](std::size_t cell, std::size_t) {
    const trace::Span span(trace::Kind::kCombine, "statistics");
    const std::uint64_t offset = cell * kCellElements;
    std::vector<const std::byte*> inputs(elements.inputs.begin(), elements.inputs.end());
    for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] += offset * size_bytes(task.values.inputs[i].dtype);
    result[cell] = sum_cell(task, {.first_element = elements.first_element + offset,
                                   .num_elements = std::min<std::size_t>(kCellElements, elements.num_elements - offset),
                                   .inputs = inputs});
  });
  return result;
}

void add_cell(const StatisticsSums& later, StatisticsSums& sums) {
  sums.elements += later.elements;
  sums.left_out += later.left_out;
  sums.sign_conflicts += later.sign_conflicts;
  sums.kept += later.kept;
  sums.values.resize(later.values.size());
  for (std::size_t i = 0; i < later.values.size(); ++i) {
    const ValueSums& from = later.values[i];
    ValueSums& to = sums.values[i];
    to.squares += from.squares;
    to.dot += from.dot;
    to.squared_difference += from.squared_difference;
    to.max_absolute = std::max(to.max_absolute, from.max_absolute);
    to.non_finite += from.non_finite;
  }
}

}  // namespace moeweld::merge
