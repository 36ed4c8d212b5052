// Weighted sum or mean. The sum is formed first and divided last: the mean of three BF16 models with weight 1 is then exactly rounded.
#include "merge/methods.h"

namespace moeweld::merge {
namespace {

enum Shared : std::size_t { kNormalize };

double weight_sum(const Task& task) {
  double sum = 0;
  for (const TaskInput& input : task.inputs) sum += input.parameters.at(0);
  return sum;
}

std::vector<std::string> check(const Task& task) {
  std::vector<std::string> problems = finite_parameter_problems(linear_method(), task);
  if (problems.empty() && task.parameters.at(kNormalize) != 0 && weight_sum(task) == 0) {
    problems.emplace_back("the weights of method 'linear' add up to 0, so they cannot be normalized; change a weight or set normalize: false.");
  }
  return problems;
}

void apply(const Task& task, const Decisions&, const Elements& elements, std::byte* output) {
  Combination combination;
  for (std::size_t i = 0; i < task.inputs.size(); ++i) {
    combination.inputs.push_back(i);
    combination.coefficients.push_back(task.inputs[i].parameters.at(0));
  }
  if (task.parameters.at(kNormalize) != 0) combination.divisor = weight_sum(task);
  apply_combination(task, combination, elements, output);
}

}  // namespace

const MethodRow& linear_method() {
  static const MethodRow row{
      .name = "linear",
      .title = "Weighted mean",
      .reference = "Wortsman et al. 2022, Model soups",
      .inputs = {.min_inputs = 1, .base = Base::kIgnored},
      .shared_parameters = {{.name = "normalize", .type = ParameterType::kBoolean, .default_value = 1, .meaning = "divide by the sum of the weights"}},
      .model_parameters = {{.name = "weight", .meaning = "factor of this model", .base_too = true}},
      .check = check,
      .apply = apply,
  };
  return row;
}

}  // namespace moeweld::merge
