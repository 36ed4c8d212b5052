// A model as it is, or times a number.
#include <cmath>

#include "merge/methods.h"

namespace moeweld::merge {
namespace {

std::vector<std::string> check(const Task& task) { return finite_parameter_problems(passthrough_method(), task); }

void apply(const Task& task, const Decisions&, const Elements& elements, std::byte* output) {
  const double scale = task.inputs[0].parameters.at(0);
  if (std::isnan(scale)) return apply_conversion(task, 0, elements, output);
  apply_combination(task, {.inputs = {0}, .coefficients = {scale}}, elements, output);
}

}  // namespace

const MethodRow& passthrough_method() {
  static const MethodRow row{
      .name = "passthrough",
      .title = "Copy of one model",
      .reference = "",
      .inputs = {.min_inputs = 1, .max_inputs = 1, .base = Base::kIgnored},
      .shared_parameters = {},
      .model_parameters = {{.name = "scale", .optional = true, .meaning = "factor for every element; none copies", .base_too = true}},
      .check = check,
      .apply = apply,
  };
  return row;
}

}  // namespace moeweld::merge
