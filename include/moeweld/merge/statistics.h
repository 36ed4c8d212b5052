#pragma once
/// What a merge did to a tensor, in a few figures: sums over its elements that do not depend on how the work is divided.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "moeweld/merge/task.h"

namespace moeweld::merge {

/// Elements per cell: the unit in which these sums are formed. Smaller than a block, since the values of a cell that two ranks share have
/// to be sent.
constexpr std::uint64_t kCellElements = std::uint64_t{1} << 14;

constexpr std::uint64_t num_cells(std::uint64_t num_elements) { return (num_elements + kCellElements - 1) / kCellElements; }

/// The values that are looked at: the inputs of an operation and, last, its output.
struct StatisticsTask {
  Task values;            ///< of which the shape and the types of `inputs` count
  int reference = -1;     ///< index into values.inputs that the others are compared with; -1: none
  bool has_base = false;  ///< the reference is a base: the others' differences to it are task vectors

  std::size_t num_values() const { return values.inputs.size(); }
};

/// Sums of one input or of the output. Those with the reference are 0 where there is none.
struct ValueSums {
  double squares = 0;
  double dot = 0;                 ///< with the reference
  double squared_difference = 0;  ///< to the reference
  double max_absolute = 0;
  std::uint64_t non_finite = 0;  ///< elements that are NaN or infinite
};

/// Sums of one cell, or of several that follow each other. An element at which any value is not finite is left out of everything but
/// `elements`, `left_out` and `non_finite`.
struct StatisticsSums {
  std::uint64_t elements = 0;
  std::uint64_t left_out = 0;
  /// Elements at which one input is above zero and another below: with a base their differences to it, the base aside.
  std::uint64_t sign_conflicts = 0;
  /// Elements at which the output is not what the base is; without a base, those at which it is not 0.
  std::uint64_t kept = 0;
  std::vector<ValueSums> values;  ///< in the task's order
};

template <class Archive>
void serialize(Archive& archive, ValueSums& sums) {
  archive(sums.squares, sums.dot, sums.squared_difference, sums.max_absolute, sums.non_finite);
}
template <class Archive>
void serialize(Archive& archive, StatisticsSums& sums) {
  archive(sums.elements, sums.left_out, sums.sign_conflicts, sums.kept, sums.values);
}

/// One cell: at most kCellElements elements, in sixteen lanes folded in order, float64. Differences are formed in float64. Thread-safe.
StatisticsSums sum_cell(const StatisticsTask& task, const Elements& cell);

/// sum_cell() of the cells of `elements`, which begin at a cell's border, with OpenMP. Same result for any number of threads.
std::vector<StatisticsSums> sum_cells(const StatisticsTask& task, const Elements& elements);

/// `later` follows what `sums` holds. Sums depend on where this began: always add one cell after the other from the tensor's first on.
void add_cell(const StatisticsSums& later, StatisticsSums& sums);

}  // namespace moeweld::merge
