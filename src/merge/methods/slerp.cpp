#include <cmath>

#include "merge/combine.h"
#include "merge/methods/rows.h"
#include "moeweld/base/elementary.h"
#include "moeweld/merge/gram.h"

namespace moeweld::merge {

namespace {

/// Nearly parallel (or opposite) tensors have no stable arc between them.
constexpr double kParallelCosine = 0.9995;
/// A norm this small is left unscaled.
constexpr double kSmallestNorm = 1e-8;

std::optional<PhaseShape> next_phase(const Task&, const Decisions& decisions) {
  if (!decisions.reals.empty()) return std::nullopt;
  return PhaseShape{.phase = 0, .num_counts = 0, .has_sums = true, .is_only = true};
}

void measure(const Task& task, const Decisions&, const PhaseShape&, const Elements& block, std::span<std::uint64_t>,
             std::vector<double>& sums) {
  measure_gram(task, block, sums);
}

double norm_or_one(double square) {
  const double norm = std::sqrt(square);
  return norm > kSmallestNorm ? norm : 1.0;
}

/// reals: the coefficient of the base, then of the other.
void decide(const Task& task, const PhaseShape&, const PhaseResult& result, Decisions& decisions) {
  const double t = task.parameters[0];
  // An empty tensor has no blocks, so no sums either.
  double cosine = 1;
  if (result.sums.size() == 3) cosine = result.sums[1] / (norm_or_one(result.sums[0]) * norm_or_one(result.sums[2]));
  if (!(std::abs(cosine) <= kParallelCosine)) {
    decisions.reals = {1 - t, t};
    return;
  }
  const double angle = exact_acos(cosine);
  const double sine = exact_sin(angle);
  decisions.reals = {exact_sin((1 - t) * angle) / sine, exact_sin(t * angle) / sine};
}

void apply(const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output) {
  apply_combination(task, {.terms = {task.base_index, 1 - task.base_index}, .weights = decisions.reals}, elements, output);
}

}  // namespace

MethodRow slerp_row() {
  MethodRow row;
  row.name = "slerp";
  row.title = "Spherical linear interpolation";
  row.reference = "Shoemake 1985, https://dl.acm.org/doi/10.1145/325165.325242";
  row.inputs = {.min_inputs = 2, .max_inputs = 2, .base = Base::kRequired};
  row.shared_parameters = {{.name = "t", .meaning = "0: the base, 1: the other model"}};
  row.next_phase = next_phase;
  row.measure = measure;
  row.decide = decide;
  row.apply = apply;
  return row;
}

}  // namespace moeweld::merge
