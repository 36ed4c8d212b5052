#include "exec/generated_rows.h"

#include <algorithm>
#include <limits>

#include "moeweld/base/error.h"
#include "moeweld/base/random.h"
#include "moeweld/merge/measure.h"

namespace moeweld::exec {

namespace {

using plan::Operation;

/// Elements converted at a time.
constexpr std::uint64_t kGeneratedElements = 1 << 15;

/// Made elements from `first` on, before rows are repeated.
void fill(const plan::MergePlan& plan, const Operation& operation, const std::vector<std::vector<double>>& slot_rows, std::uint64_t first,
          std::span<double> values) {
  if (operation.kind == Operation::Kind::kRandomFill) {
    fill_random(plan.seed, operation, first, values);
  } else if (operation.kind == Operation::Kind::kConstant) {
    std::fill(values.begin(), values.end(), operation.constant);
  } else {
    const std::vector<double>& rows = slot_rows.at(operation.slot);
    first += operation.fill.first_index;
    if (first + values.size() > rows.size()) throw Error(ErrorCode::kInternal, "a slot is shorter than planned", {}, operation.name);
    std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(first), values.size(), values.begin());
  }
}

}  // namespace

void fill_random(std::uint64_t seed, const Operation& operation, std::uint64_t first, std::span<double> values) {
  const RandomStream stream{seed, operation.fill.stream};
  first += operation.fill.first_index;
  if (operation.fill.distribution == Operation::RandomFill::Distribution::kNormal) {
    fill_normal(stream, first, values);
    for (double& value : values) value *= operation.fill.scale;
  } else {
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = (2.0 * static_cast<double>(uniform(stream, first + i)) - 1.0) * operation.fill.scale;
    }
  }
}

void generate_rows(const plan::MergePlan& plan, const Operation& operation, const std::vector<std::vector<double>>& slot_rows,
                   const merge::Elements& elements, std::byte* target) {
  static const merge::MethodRow& passthrough = *merge::find_method("passthrough");
  const std::uint64_t columns = operation.task.shape.empty() ? 1 : std::max<std::uint64_t>(1, operation.task.shape.back());
  std::vector<double> values;
  for (std::uint64_t done = 0; done < elements.num_elements;) {
    std::uint64_t element = elements.first_element + done;
    std::uint64_t count = std::min(kGeneratedElements, elements.num_elements - done);
    if (operation.repeat_rows > 1) {
      const std::uint64_t row = element / columns;
      const std::uint64_t column = element % columns;
      count = std::min(count, columns - column);
      element = row / operation.repeat_rows * columns + column;
    }
    values.resize(count);
    fill(plan, operation, slot_rows, element, values);
    merge::Task task;
    task.shape = {count};
    task.output_dtype = operation.task.output_dtype;
    task.inputs = {{DType::kF64, {std::numeric_limits<double>::quiet_NaN()}}};
    const std::byte* input = reinterpret_cast<const std::byte*>(values.data());
    merge::apply_elements(passthrough, task, {}, {.first_element = 0, .num_elements = count, .inputs = std::span(&input, 1)},
                          target + done * size_bytes(operation.task.output_dtype));
    done += count;
  }
}

}  // namespace moeweld::exec
