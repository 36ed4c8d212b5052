// Interpolation along the great circle through two models.
#include <cmath>
#include <limits>

#include "merge/gram.h"
#include "merge/methods.h"
#include "moeweld/base/elementary.h"

namespace moeweld::merge {
namespace {

constexpr double kSmallestNorm = 1e-8;       // below, a vector has no direction and is left unscaled
constexpr double kLargestCosine = 0.9995;    // beyond, the circle is as good as a line

std::vector<std::string> check(const Task& task) { return finite_parameter_problems(slerp_method(), task); }

std::optional<PhaseShape> next_phase(const Task&, const Decisions& decisions) {
  if (!decisions.reals.empty()) return std::nullopt;
  return PhaseShape{.phase = 0, .num_counts = 0, .has_sums = true};
}

void measure(const Task& task, const Decisions&, const PhaseShape&, const Elements& elements, std::span<std::uint64_t>, std::vector<double>& sums) {
  gram_of_block(task, elements, sums);
}

// Decisions: one coefficient per input, in the inputs' order.
void decide(const Task& task, const PhaseShape&, const PhaseResult& result, Decisions& decisions) {
  const double t = task.parameters.at(0);
  double first = 1 - t;
  double second = t;
  if (!result.sums.empty()) {
    const auto scale = [](double square) {
      const double norm = std::sqrt(square);
      return norm > kSmallestNorm || std::isnan(norm) ? norm : 1.0;
    };
    const double cosine = result.sums[1] / (scale(result.sums[0]) * scale(result.sums[2]));
    if (std::isnan(cosine)) {
      first = second = std::numeric_limits<double>::quiet_NaN();
    } else if (std::fabs(cosine) <= kLargestCosine) {
      const double angle = exact_acos(cosine);
      const double sine = exact_sin(angle);
      first = exact_sin((1 - t) * angle) / sine;
      second = exact_sin(t * angle) / sine;
    }
  }
  decisions.reals = task.base_index == 1 ? std::vector<double>{second, first} : std::vector<double>{first, second};
}

void apply(const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output) {
  apply_combination(task, {.inputs = {0, 1}, .coefficients = {decisions.reals.at(0), decisions.reals.at(1)}}, elements, output);
}

}  // namespace

const MethodRow& slerp_method() {
  static const MethodRow row{
      .name = "slerp",
      .title = "Spherical linear interpolation",
      .reference = "Shoemake 1985",
      .inputs = {.min_inputs = 2, .max_inputs = 2, .base = Base::kRequired},
      .shared_parameters = {{.name = "t", .meaning = "0 is the base, 1 the other model"}},
      .model_parameters = {},
      .check = check,
      .next_phase = next_phase,
      .measure = measure,
      .decide = decide,
      .apply = apply,
  };
  return row;
}

}  // namespace moeweld::merge
