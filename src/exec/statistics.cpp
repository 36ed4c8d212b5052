#include "moeweld/exec/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "exec/statistics_gatherer.h"
#include "moeweld/merge/method.h"
#include "moeweld/model/tensor_name.h"

namespace moeweld::exec {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

ValueStatistics finish(const merge::ValueSums& sums, const merge::ValueSums* reference) {
  ValueStatistics result;
  result.norm = std::sqrt(sums.squares);
  result.max_absolute = sums.max_absolute;
  result.non_finite = sums.non_finite;
  result.cosine = kNone;
  result.difference_norm = kNone;
  if (reference == nullptr) return result;
  result.difference_norm = std::sqrt(sums.squared_difference);
  const double norms = result.norm * std::sqrt(reference->squares);
  // Rounding must not show a copy as turned.
  if (norms > 0) result.cosine = sums.squared_difference == 0 ? 1.0 : std::clamp(sums.dot / norms, -1.0, 1.0);
  return result;
}

std::string method_name(const plan::Operation& operation) {
  switch (operation.kind) {
    case plan::Operation::Kind::kMerge:
      return std::string(merge::method_table()[operation.method].name);
    case plan::Operation::Kind::kCopy:
      return "copy";
    case plan::Operation::Kind::kRandomFill:
      return "random";
    case plan::Operation::Kind::kConstant:
      return "constant";
    case plan::Operation::Kind::kSlot:
    case plan::Operation::Kind::kBlockScales:
      break;
  }
  return "rows";
}

}  // namespace

bool has_statistics(const plan::MergePlan& plan, std::uint32_t index) {
  const plan::Operation& operation = plan.operations[index];
  if (operation.kind == plan::Operation::Kind::kBlockScales || !is_arithmetic(operation.task.output_dtype)) return false;
  return std::all_of(operation.sources.begin(), operation.sources.end(),
                     [](const plan::SourceView& source) { return is_arithmetic(source.dtype); });
}

TensorStatistics describe_tensor(const plan::MergePlan& plan, std::uint32_t index, const merge::StatisticsSums* sums) {
  const plan::Operation& operation = plan.operations[index];
  const merge::StatisticsTask task = statistics_task(operation);
  TensorStatistics result;
  const std::string& file = plan.output_files[plan.tensors[operation.tensor].file].name;
  if (!plan.outputs.empty()) result.output = file.substr(0, file.find('/'));
  result.name = operation.name;
  const model::NamePattern pattern = model::split_name(operation.name);
  result.pattern = pattern.pattern;
  result.layer = pattern.layer;
  result.expert = pattern.expert;
  result.method = method_name(operation);
  result.dtype = operation.result_dtype();
  result.shape = operation.task.shape;
  result.has_base = task.has_base;
  result.reference = task.reference;
  for (const plan::SourceView& source : operation.sources) {
    const plan::SourceView& leaf = plan::first_leaf(source);
    result.models.push_back(leaf.kind == plan::SourceView::Kind::kZeros ? kNoModel : plan.input_files[leaf.file].model);
  }
  result.is_measured = sums != nullptr;
  const std::size_t num_inputs = operation.sources.size();
  if (sums == nullptr) {
    const ValueStatistics none{kNone, kNone, kNone, kNone, 0};
    result.inputs.assign(num_inputs, none);
    result.result = none;
    result.sign_conflicts = kNone;
    result.density_kept = kNone;
    return result;
  }
  std::vector<merge::ValueSums> values = sums->values;
  values.resize(task.num_values());  // an empty tensor has none
  const merge::ValueSums* reference = task.reference < 0 ? nullptr : &values[static_cast<std::size_t>(task.reference)];
  for (std::size_t i = 0; i < num_inputs; ++i) result.inputs.push_back(finish(values[i], reference));
  result.result = finish(values.back(), reference);
  result.left_out = sums->left_out;
  const auto count = static_cast<double>(sums->elements - sums->left_out);
  const std::size_t num_signs = num_inputs - (task.has_base ? 1 : 0);
  result.sign_conflicts = count > 0 && num_signs > 1 ? static_cast<double>(sums->sign_conflicts) / count : kNone;
  result.density_kept = count > 0 ? static_cast<double>(sums->kept) / count : kNone;
  return result;
}

std::uint64_t statistics_bytes(const plan::MergePlan& plan) {
  std::uint64_t rows = 0;
  std::uint64_t cells = 0;
  std::uint64_t fragments = 0;
  for (std::uint32_t index = 0; index < plan.operations.size(); ++index) {
    if (!has_statistics(plan, index)) continue;
    const plan::Operation& operation = plan.operations[index];
    const std::uint64_t num_values = operation.sources.size() + 1;
    const std::uint64_t sums = sizeof(merge::StatisticsSums) + num_values * sizeof(merge::ValueSums);
    // Sums on the way and the figures at the end, of every tensor.
    rows +=
        sizeof(TensorStatistics) + 2 * operation.name.size() + num_values * (sizeof(ValueStatistics) + sizeof(std::uint32_t)) + 2 * sums;
    cells = std::max(cells, merge::num_cells(operation.task.elements()) * sums);
    std::uint64_t bytes = size_bytes(operation.task.output_dtype);
    for (const plan::SourceView& source : operation.sources) bytes += size_bytes(source.dtype);
    fragments = std::max(fragments, std::min(merge::kCellElements, operation.task.elements()) * bytes);
  }
  // A rank's first and last tensor may be shared; what it knows of them is sent and received.
  return rows + 2 * cells + 6 * fragments;
}

}  // namespace moeweld::exec
