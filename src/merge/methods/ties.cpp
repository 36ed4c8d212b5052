#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>

#include "merge/kernels/elect_signs.h"
#include "merge/kernels/lane_sums.h"
#include "merge/magnitude_selection.h"
#include "merge/methods/rows.h"
#include "merge/methods/ties_parts.h"
#include "merge/tiles.h"

namespace moeweld::merge {

namespace {

using namespace ties;  // NOLINT(google-build-using-namespace): this file is half of it

/// An L1 norm this small is not scaled by or to.
constexpr double kSmallestNorm = 1e-7;

bool has_dropped(const Task& task) {
  const std::vector<double> densities = model_parameters(task, kDensity);
  return std::any_of(densities.begin(), densities.end(), [](double density) { return density < 1; });
}

std::optional<PhaseShape> next_phase(const Task& task, const Decisions& decisions) {
  const MagnitudeSelection selection(task, task_vectors(task));
  const Decisions now = started(task, decisions);
  if (auto shape = selection.next_phase(now)) {
    shape->phase = kSelect;
    return shape;
  }
  if (task.parameters[kRescale] != 0.0 && has_dropped(task) && now.reals.empty() && task.elements() != 0) {
    return PhaseShape{.phase = kRescaleSums, .num_counts = 0, .has_sums = true};
  }
  return std::nullopt;
}

std::uint64_t scratch_bytes(const Task& task, int threads) { return MagnitudeSelection(task, task_vectors(task)).scratch_bytes(threads); }

std::vector<KeepRule> rules_at(const Task& task, const MagnitudeSelection& selection, const Decisions& decisions, std::uint64_t index) {
  std::vector<KeepRule> rules;
  for (std::size_t i = 0; i < task_vectors(task).size(); ++i) rules.push_back(selection.rule(decisions, i, index));
  return rules;
}

/// Keeps what each addition rounds away: plain sums of a block's elements would leave the factor further than 2^-50 from its definition.
struct CompensatedSum {
  double sum = 0;
  double lost = 0;
  void add(double value) {
    const double total = sum + value;
    lost += std::abs(sum) >= std::abs(value) ? (sum - total) + value : (value - total) + sum;
    sum = total;
  }
};

/// Per task vector: Σ|δ| and Σ|δ'|.
template <typename T>
void measure_norms(const Task& task, const MagnitudeSelection& selection, const Decisions& decisions, const Elements& block,
                   std::vector<double>& sums) {
  const std::vector<int> inputs = task_vectors(task);
  const std::vector<KeepRule> rules = rules_at(task, selection, decisions, block.first_element);
  const std::uint32_t salt = index_salt(task.tensor_key, block.first_element);
  std::vector<CompensatedSum> totals(2 * inputs.size());
  std::array<double, kTileElements> deltas;
  const auto add_tile = [&](std::size_t num, CompensatedSum& total) {
    LaneSums lanes{};
    add_magnitudes(deltas.data(), num, lanes);
    total.add(fold_lanes(lanes));
  };
  for_padded(task, block, nullptr, 0, [&](const Elements& part, std::size_t, std::byte*) {
    for_decoded_tiles<T>(task, part, [&](std::span<const void* const> tiles, std::size_t offset, std::size_t num) {
      const auto* base = static_cast<const T*>(tiles[static_cast<std::size_t>(task.base_index)]);
      const auto low = static_cast<std::uint32_t>(part.first_element + offset);
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const auto* term = static_cast<const T*>(tiles[static_cast<std::size_t>(inputs[i])]);
        kept_deltas(KeepRule{}, salt, term, base, num, low, deltas.data());
        add_tile(num, totals[2 * i]);
        kept_deltas(rules[i], salt, term, base, num, low, deltas.data());
        add_tile(num, totals[2 * i + 1]);
      }
    });
  });
  for (const CompensatedSum& total : totals) sums.push_back(total.sum + total.lost);
}

void measure(const Task& task, const Decisions& decisions, const PhaseShape& phase, const Elements& block, std::span<std::uint64_t> counts,
             std::vector<double>& sums) {
  const MagnitudeSelection selection(task, task_vectors(task));
  const Decisions now = started(task, decisions);
  if (phase.phase == kSelect) return selection.measure(now, block, counts, sums);
  if (computes_in_float64(task.output_dtype)) return measure_norms<double>(task, selection, now, block, sums);
  measure_norms<float>(task, selection, now, block, sums);
}

void fold(const Task&, const PhaseShape& phase, std::uint64_t, std::span<const double> sums, std::vector<double>& total) {
  if (phase.phase == kSelect) return MagnitudeSelection::fold(sums, total);
  total.resize(sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) total[i] += sums[i];
}

/// integers: the searches; reals: one factor per task vector, when rescaled.
void decide(const Task& task, const PhaseShape& phase, const PhaseResult& result, Decisions& decisions) {
  decisions = started(task, decisions);
  if (phase.phase == kSelect) return MagnitudeSelection(task, task_vectors(task)).decide(result, decisions);
  for (std::size_t i = 0; i + 1 < result.sums.size(); i += 2) {
    const double before = result.sums[i];
    const double after = result.sums[i + 1];
    decisions.reals.push_back(before < kSmallestNorm || after < kSmallestNorm ? 1.0 : before / after);
  }
}

template <typename T>
void apply_as(const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output) {
  Election<T> election(task, decisions);
  const MagnitudeSelection selection(task, election.inputs);
  const std::size_t element_size = size_bytes(task.output_dtype);
  const bool all_bf16 = task.output_dtype == DType::kBF16 && all_inputs_are(task, DType::kBF16);
  for_runs_of_rules(task, elements, output, [&](const Elements& run, std::byte* target_begin) {
    const std::vector<KeepRule> rules = rules_at(task, selection, decisions, run.first_element);
    election.kernel.rules = rules;
    election.kernel.index_salt = index_salt(task.tensor_key, run.first_element);
    for_padded(task, run, target_begin, element_size, [&](const Elements& part, std::size_t, std::byte* target) {
      if constexpr (std::is_same_v<T, float>) {
        if (all_bf16) {
          election.point_to(task, part.inputs);
          election.kernel.first_low = static_cast<std::uint32_t>(part.first_element);
          elect_signs_bf16(election.kernel, part.num_elements, reinterpret_cast<std::uint16_t*>(target));
          return;
        }
      }
      std::array<T, kTileElements> result;
      for_decoded_tiles<T>(task, part, [&](std::span<const void* const> tiles, std::size_t offset, std::size_t num) {
        election.point_to(task, tiles);
        election.kernel.first_low = static_cast<std::uint32_t>(part.first_element + offset);
        elect_signs(election.kernel, num, result.data());
        encode(task.output_dtype, result.data(), num, NanPolicy::kCanonical, target + offset * element_size);
      });
    });
  });
}

void apply(const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output) {
  if (task.inputs.size() == 1) {  // a base and nothing else: itself
    Task alone = task;
    alone.inputs[0].parameters = {std::numeric_limits<double>::quiet_NaN()};
    return passthrough_row().apply(alone, {}, elements, output);
  }
  const Decisions now = started(task, decisions);
  if (computes_in_float64(task.output_dtype)) return apply_as<double>(task, now, elements, output);
  apply_as<float>(task, now, elements, output);
}

}  // namespace

MethodRow ties_row() {
  MethodRow row;
  row.name = "ties";
  row.title = "TIES: trim by magnitude, elect signs, merge";
  row.reference = "https://arxiv.org/abs/2306.01708";
  row.inputs = {.min_inputs = 1, .base = Base::kRequired};
  row.shared_parameters = {
      {.name = "normalize",
       .type = ParameterType::kBoolean,
       .default_value = 1,
       .meaning = "divide by the sum of the weights that took part"},
      {.name = "lambda", .default_value = 1, .meaning = "factor on the merged task vector"},
      {.name = "rescale", .type = ParameterType::kBoolean, .default_value = 0, .meaning = "restore the L1 norm that trimming took away"},
      {.name = "int8_mask", .type = ParameterType::kBoolean, .default_value = 0, .meaning = "accepted, no effect", .no_effect = true}};
  row.model_parameters = {{.name = "weight", .meaning = "weight of the model's task vector"},
                          {.name = "density", .default_value = 1, .meaning = "fraction of the task vector that is kept"}};
  row.next_phase = next_phase;
  row.scratch_bytes = scratch_bytes;
  row.measure = measure;
  row.fold = fold;
  row.decide = decide;
  row.apply = apply;
  row.speculation = &ties::kSpeculation;
  return row;
}

}  // namespace moeweld::merge
