// Base plus a weighted sum of task vectors.
#include <cmath>

#include "merge/methods.h"

namespace moeweld::merge {
namespace {

enum Shared : std::size_t { kNormalize, kLambda };

std::vector<std::string> check(const Task& task) { return finite_parameter_problems(task_arithmetic_method(), task); }

void apply(const Task& task, const Decisions&, const Elements& elements, std::byte* output) {
  Combination combination{.inputs = task_vectors(task), .coefficients = {}, .around_base = true, .lambda = task.parameters.at(kLambda)};
  if (combination.inputs.empty()) return apply_conversion(task, static_cast<std::size_t>(task.base_index), elements, output);
  double sum = 0;
  for (const std::size_t i : combination.inputs) {
    combination.coefficients.push_back(task.inputs[i].parameters.at(0));
    sum += combination.coefficients.back();
  }
  if (task.parameters.at(kNormalize) != 0 && std::fabs(sum) >= 1e-8) combination.divisor = sum;
  apply_combination(task, combination, elements, output);
}

}  // namespace

const MethodRow& task_arithmetic_method() {
  static const MethodRow row{
      .name = "task_arithmetic",
      .title = "Base plus weighted task vectors",
      .reference = "Ilharco et al. 2023, Editing models with task arithmetic",
      .inputs = {.min_inputs = 1, .base = Base::kRequired},
      .shared_parameters =
          {{.name = "normalize", .type = ParameterType::kBoolean, .default_value = 0, .meaning = "divide by the sum of the weights"},
           {.name = "lambda", .default_value = 1, .meaning = "factor of the combined task vector"},
           {.name = "rescale", .type = ParameterType::kBoolean, .default_value = 0, .meaning = "nothing is sparsified here", .no_effect = true},
           {.name = "int8_mask", .type = ParameterType::kBoolean, .default_value = 0, .meaning = "masks need no memory here", .no_effect = true}},
      .model_parameters = {{.name = "weight", .meaning = "factor of this model's task vector"},
                           {.name = "density", .default_value = 1, .meaning = "nothing is sparsified here", .no_effect = true}},
      .check = check,
      .apply = apply,
  };
  return row;
}

}  // namespace moeweld::merge
