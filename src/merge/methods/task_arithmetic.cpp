#include <cmath>

#include "merge/combine.h"
#include "merge/methods/rows.h"

namespace moeweld::merge {

namespace {

/// A sum of weights this small is not divided by.
constexpr double kSmallestWeightSum = 1e-8;

void apply(const Task& task, const Decisions&, const Elements& elements, std::byte* output) {
  Combination combination;
  combination.base = task.base_index;
  combination.lambda = task.parameters[1];
  double sum = 0;
  for (int i = 0; i < static_cast<int>(task.inputs.size()); ++i) {
    if (i == task.base_index) continue;
    combination.terms.push_back(i);
    combination.weights.push_back(task.inputs[static_cast<std::size_t>(i)].parameters[0]);
    sum += combination.weights.back();
  }
  if (combination.terms.empty()) {
    combination.terms = {task.base_index};
    combination.weights = {0};
  }
  if (task.parameters[0] != 0.0 && std::abs(sum) >= kSmallestWeightSum) combination.divisor = sum;
  apply_combination(task, combination, elements, output);
}

}  // namespace

MethodRow task_arithmetic_row() {
  MethodRow row;
  row.name = "task_arithmetic";
  row.title = "Task arithmetic: weighted sum of task vectors";
  row.reference = "https://arxiv.org/abs/2212.04089";
  row.inputs = {.min_inputs = 1, .base = Base::kRequired};
  row.shared_parameters = {
      {.name = "normalize", .type = ParameterType::kBoolean, .default_value = 0, .meaning = "divide by the sum of the weights"},
      {.name = "lambda", .default_value = 1, .meaning = "factor on the merged task vector"},
      {.name = "int8_mask", .type = ParameterType::kBoolean, .default_value = 0, .meaning = "accepted, no effect", .no_effect = true},
      {.name = "rescale",
       .type = ParameterType::kBoolean,
       .default_value = 0,
       .meaning = "accepted, no effect without a density",
       .no_effect = true}};
  row.model_parameters = {{.name = "weight", .meaning = "weight of the model's task vector"},
                          {.name = "density", .default_value = 1, .meaning = "accepted, no effect", .no_effect = true}};
  row.apply = apply;
  return row;
}

}  // namespace moeweld::merge
