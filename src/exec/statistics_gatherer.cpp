#include "exec/statistics_gatherer.h"

#include <algorithm>
#include <cstring>

#include "moeweld/base/error.h"

namespace moeweld::exec {

using merge::kCellElements;

namespace {

std::uint64_t elements_of_cell(std::uint64_t num_elements, std::uint64_t cell) {
  return std::min(kCellElements, num_elements - cell * kCellElements);
}

}  // namespace

merge::StatisticsTask statistics_task(const plan::Operation& operation) {
  merge::StatisticsTask task;
  task.values.shape = operation.task.shape;
  for (const plan::SourceView& source : operation.sources) task.values.inputs.push_back({source.dtype, {}});
  task.values.inputs.push_back({operation.task.output_dtype, {}});
  if (operation.sources.empty()) return task;
  task.has_base = operation.kind == plan::Operation::Kind::kMerge && operation.task.base_index >= 0;
  task.reference = task.has_base ? operation.task.base_index : 0;
  return task;
}

void StatisticsGatherer::add(std::uint32_t operation, const merge::Elements& inputs, const std::byte* output) {
  if (operation != operation_ || inputs.first_element != next_element_) {
    end_run();
    operation_ = operation;
    task_ = statistics_task(plan_.operations[operation]);
  }
  std::vector<const std::byte*> pointers(inputs.inputs.begin(), inputs.inputs.end());
  pointers.resize(task_.num_values() - 1);
  pointers.push_back(output);
  merge::Elements rest{.first_element = inputs.first_element, .num_elements = inputs.num_elements, .inputs = pointers};
  const std::uint64_t total = plan_.operations[operation].task.elements();
  next_element_ = inputs.first_element + inputs.num_elements;

  const auto take = [&](std::uint64_t count) {
    for (std::size_t i = 0; i < pointers.size(); ++i) pointers[i] += count * size_bytes(task_.values.inputs[i].dtype);
    rest.first_element += count;
    rest.num_elements -= count;
  };
  // The end of a cell that began before.
  if (const std::uint64_t within = rest.first_element % kCellElements; within != 0 && rest.num_elements != 0) {
    const std::uint64_t cell = rest.first_element / kCellElements;
    const std::uint64_t count = std::min<std::uint64_t>(rest.num_elements, elements_of_cell(total, cell) - within);
    append_to_pending({.first_element = rest.first_element, .num_elements = count, .inputs = pointers});
    take(count);
  }
  const std::uint64_t whole = next_element_ == total ? rest.num_elements : rest.num_elements / kCellElements * kCellElements;
  if (whole != 0) {
    add_cells(rest.first_element / kCellElements,
              merge::sum_cells(task_, {.first_element = rest.first_element, .num_elements = whole, .inputs = pointers}));
    take(whole);
  }
  if (rest.num_elements != 0) append_to_pending(rest);
}

void StatisticsGatherer::append_to_pending(const merge::Elements& values) {
  if (pending_.values.empty()) {
    pending_.operation = operation_;
    pending_.first_element = values.first_element;
    pending_.num_elements = 0;
    pending_.values.resize(task_.num_values());
  }
  for (std::size_t i = 0; i < task_.num_values(); ++i) {
    const std::size_t bytes = values.num_elements * size_bytes(task_.values.inputs[i].dtype);
    pending_.values[i].insert(pending_.values[i].end(), values.inputs[i], values.inputs[i] + bytes);
  }
  pending_.num_elements += values.num_elements;
  const std::uint64_t cell = pending_.first_element / kCellElements;
  const std::uint64_t end = pending_.first_element + pending_.num_elements;
  if (end != cell * kCellElements + elements_of_cell(plan_.operations[operation_].task.elements(), cell)) return;
  if (pending_.first_element % kCellElements == 0) {
    // The allocator's memory is aligned for any type.
    std::vector<const std::byte*> pointers;
    for (const std::vector<std::byte>& list : pending_.values) pointers.push_back(list.data());
    add_cells(cell, {merge::sum_cell(
                        task_, {.first_element = pending_.first_element, .num_elements = pending_.num_elements, .inputs = pointers})});
    pending_ = {};
  } else {
    part_.fragments.push_back(std::exchange(pending_, {}));
  }
}

void StatisticsGatherer::add_cells(std::uint64_t first_cell, std::vector<merge::StatisticsSums> sums) {
  const std::uint64_t count = sums.size();
  if (!part_.cells.empty()) {
    StatisticsPart::Cells& last = part_.cells.back();
    if (last.operation == operation_ && last.first_cell + last.num_cells == first_cell) {
      last.num_cells += count;
      for (merge::StatisticsSums& cell : sums) {
        if (last.first_cell == 0) {
          merge::add_cell(cell, last.sums.front());
        } else {
          last.sums.push_back(std::move(cell));
        }
      }
      return;
    }
  }
  if (first_cell == 0) {
    merge::StatisticsSums folded;
    for (const merge::StatisticsSums& cell : sums) merge::add_cell(cell, folded);
    sums = {std::move(folded)};
  }
  part_.cells.push_back({operation_, first_cell, count, std::move(sums)});
}

void StatisticsGatherer::end_run() {
  if (!pending_.values.empty()) part_.fragments.push_back(std::exchange(pending_, {}));
}

StatisticsPart StatisticsGatherer::take() {
  end_run();
  operation_ = plan::kNoOperation;
  return std::exchange(part_, {});
}

void StatisticsAssembler::add(StatisticsPart part) {
  for (StatisticsPart::Cells& cells : part.cells) {
    Tensor& tensor = tensors_[cells.operation];
    if (cells.first_cell == 0) {
      if (tensor.num_folded != 0 || cells.sums.size() != 1)
        throw Error(ErrorCode::kInternal, "statistics were gathered twice", {}, plan_.operations[cells.operation].name);
      tensor.folded = std::move(cells.sums.front());
      tensor.num_folded = cells.num_cells;
    } else {
      for (std::size_t i = 0; i < cells.sums.size(); ++i) tensor.cells[cells.first_cell + i] = std::move(cells.sums[i]);
    }
    fold(tensor);
  }
  for (StatisticsPart::Fragment& fragment : part.fragments) {
    const std::uint32_t operation = fragment.operation;
    const std::uint64_t cell = fragment.first_element / kCellElements;
    Tensor& tensor = tensors_[operation];
    tensor.fragments[cell].push_back(std::move(fragment));
    complete_cell(operation, tensor, cell);
  }
}

void StatisticsAssembler::complete_cell(std::uint32_t index, Tensor& tensor, std::uint64_t cell) {
  const plan::Operation& operation = plan_.operations[index];
  std::vector<StatisticsPart::Fragment>& fragments = tensor.fragments[cell];
  std::uint64_t present = 0;
  for (const StatisticsPart::Fragment& fragment : fragments) present += fragment.num_elements;
  if (present < elements_of_cell(operation.task.elements(), cell)) return;
  std::sort(fragments.begin(), fragments.end(), [](const auto& a, const auto& b) { return a.first_element < b.first_element; });
  const merge::StatisticsTask task = statistics_task(operation);
  std::vector<std::vector<std::byte>> values(task.num_values());
  std::uint64_t next = cell * kCellElements;
  for (const StatisticsPart::Fragment& fragment : fragments) {
    if (fragment.first_element != next || fragment.values.size() != values.size())
      throw Error(ErrorCode::kInternal, "statistics were gathered twice", {}, operation.name);
    for (std::size_t i = 0; i < values.size(); ++i) values[i].insert(values[i].end(), fragment.values[i].begin(), fragment.values[i].end());
    next += fragment.num_elements;
  }
  std::vector<const std::byte*> pointers;
  for (const std::vector<std::byte>& list : values) pointers.push_back(list.data());
  tensor.cells[cell] = merge::sum_cell(task, {.first_element = cell * kCellElements, .num_elements = present, .inputs = pointers});
  tensor.fragments.erase(cell);
  fold(tensor);
}

void StatisticsAssembler::fold(Tensor& tensor) {
  while (!tensor.cells.empty() && tensor.cells.begin()->first == tensor.num_folded) {
    merge::add_cell(tensor.cells.begin()->second, tensor.folded);
    tensor.cells.erase(tensor.cells.begin());
    ++tensor.num_folded;
  }
}

std::vector<TensorStatistics> StatisticsAssembler::finish() {
  std::vector<TensorStatistics> result;
  for (std::uint32_t index = 0; index < plan_.operations.size(); ++index) {
    if (!has_statistics(plan_, index)) continue;
    Tensor& tensor = tensors_[index];
    const bool is_measured = tensor.num_folded == merge::num_cells(plan_.operations[index].task.elements());
    result.push_back(describe_tensor(plan_, index, is_measured ? &tensor.folded : nullptr));
    tensors_.erase(index);
  }
  return result;
}

}  // namespace moeweld::exec
