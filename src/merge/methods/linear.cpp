#include "merge/combine.h"
#include "merge/methods/rows.h"

namespace moeweld::merge {

namespace {

double sum_of_weights(const Task& task) {
  double sum = 0;
  for (const TaskInput& input : task.inputs) sum += input.parameters[0];
  return sum;
}

std::vector<std::string> check(const Task& task) {
  if (task.parameters[0] != 0.0 && sum_of_weights(task) == 0.0) {
    return {"the weights add up to 0, so the average is not defined; set normalize: false for a plain sum"};
  }
  return {};
}

void apply(const Task& task, const Decisions&, const Elements& elements, std::byte* output) {
  // Divided once at the end, not weight by weight: three equal models then give exact thirds of an exact sum.
  Combination combination;
  for (std::size_t i = 0; i < task.inputs.size(); ++i) {
    combination.terms.push_back(static_cast<int>(i));
    combination.weights.push_back(task.inputs[i].parameters[0]);
  }
  if (task.parameters[0] != 0.0) combination.divisor = sum_of_weights(task);
  apply_combination(task, combination, elements, output);
}

}  // namespace

MethodRow linear_row() {
  MethodRow row;
  row.name = "linear";
  row.title = "Weighted average";
  row.reference = "https://arxiv.org/abs/2203.05482";
  row.inputs = {.min_inputs = 1, .base = Base::kIgnored};
  row.shared_parameters = {
      {.name = "normalize", .type = ParameterType::kBoolean, .default_value = 1, .meaning = "divide by the sum of the weights"}};
  row.model_parameters = {{.name = "weight", .meaning = "weight of the model", .base_too = true}};
  row.check = check;
  row.apply = apply;
  return row;
}

}  // namespace moeweld::merge
