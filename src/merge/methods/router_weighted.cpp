#include "merge/combine.h"
#include "merge/methods/rows.h"
#include "moeweld/base/error.h"

namespace moeweld::merge {

namespace {

void apply(const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output) {
  if (decisions.reals.size() != task.inputs.size()) throw Error(ErrorCode::kInternal, "an average by routers has no weights");
  Combination combination;
  double sum = 0;
  for (std::size_t i = 0; i < task.inputs.size(); ++i) {
    combination.terms.push_back(static_cast<int>(i));
    combination.weights.push_back(decisions.reals[i]);
    sum += decisions.reals[i];
  }
  combination.divisor = sum;
  apply_combination(task, combination, elements, output);
}

}  // namespace

/// One weight for each input, decided before the main pass: the slot of Kind::kExpertWeights has them.
MethodRow router_weighted_row() {
  MethodRow row;
  row.name = "router_weighted";
  row.title = "Average of a layer's experts, weighted by the norms of their centred router rows";
  row.inputs = {.min_inputs = 1, .base = Base::kIgnored};
  row.internal = true;
  row.apply = apply;
  return row;
}

}  // namespace moeweld::merge
