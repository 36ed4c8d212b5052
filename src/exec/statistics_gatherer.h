#pragma once
/// Gathers statistics of what a rank computes, and puts together what ranks gathered.

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "moeweld/exec/statistics.h"
#include "moeweld/merge/statistics.h"
#include "moeweld/plan/merge_plan.h"

namespace moeweld::exec {

/// What one rank knows. Sums are formed cell by cell and folded in the cells' order, so that the figures do not depend on where ranks,
/// units and windows are cut.
struct StatisticsPart {
  /// Cells from `first_cell` on, folded where that is the tensor's first, else one by one.
  struct Cells {
    std::uint32_t operation = 0;
    std::uint64_t first_cell = 0;
    std::uint64_t num_cells = 0;
    std::vector<merge::StatisticsSums> sums;
  };
  /// Part of a cell: the values themselves, each in its own type.
  struct Fragment {
    std::uint32_t operation = 0;
    std::uint64_t first_element = 0;
    std::uint64_t num_elements = 0;
    std::vector<std::vector<std::byte>> values;
  };
  std::vector<Cells> cells;
  std::vector<Fragment> fragments;
};

template <class Archive>
void serialize(Archive& archive, StatisticsPart::Cells& value) {
  archive(value.operation, value.first_cell, value.num_cells, value.sums);
}
template <class Archive>
void serialize(Archive& archive, StatisticsPart::Fragment& value) {
  archive(value.operation, value.first_element, value.num_elements, value.values);
}
template <class Archive>
void serialize(Archive& archive, StatisticsPart& value) {
  archive(value.cells, value.fragments);
}

/// What sums are formed of: the operation's sources and its result, which block-scaled operations give as F32.
merge::StatisticsTask statistics_task(const plan::Operation& operation);

/// Figures of sums; null: not measured.
TensorStatistics describe_tensor(const plan::MergePlan& plan, std::uint32_t operation, const merge::StatisticsSums* sums);

class StatisticsGatherer {
 public:
  explicit StatisticsGatherer(const plan::MergePlan& plan) : plan_(plan) {}

  /// Elements of one operation with what became of them. Those of a tensor in ascending order, as a rule without gaps.
  void add(std::uint32_t operation, const merge::Elements& inputs, const std::byte* output);

  /// Ends the gathering.
  StatisticsPart take();

 private:
  void add_cells(std::uint64_t first_cell, std::vector<merge::StatisticsSums> sums);
  void append_to_pending(const merge::Elements& values);
  void end_run();

  const plan::MergePlan& plan_;
  StatisticsPart part_;
  // The run of elements that is being added to.
  std::uint32_t operation_ = plan::kNoOperation;
  merge::StatisticsTask task_;
  std::uint64_t next_element_ = 0;
  StatisticsPart::Fragment pending_;  // what waits for the rest of its cell
};

/// On one rank, from every rank's part.
class StatisticsAssembler {
 public:
  explicit StatisticsAssembler(const plan::MergePlan& plan) : plan_(plan) {}
  void add(StatisticsPart part);
  /// Every operation that has statistics, in the plan's order.
  std::vector<TensorStatistics> finish();

 private:
  struct Tensor {
    merge::StatisticsSums folded;
    std::uint64_t num_folded = 0;
    std::map<std::uint64_t, merge::StatisticsSums> cells;                      // that wait for earlier ones
    std::map<std::uint64_t, std::vector<StatisticsPart::Fragment>> fragments;  // by cell
  };
  void complete_cell(std::uint32_t operation, Tensor& tensor, std::uint64_t cell);
  static void fold(Tensor& tensor);

  const plan::MergePlan& plan_;
  std::map<std::uint32_t, Tensor> tensors_;
};

}  // namespace moeweld::exec
