#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "merge/kernels/convert.h"
#include "merge/methods/rows.h"
#include "merge/methods/ties_parts.h"
#include "merge/tiles.h"

namespace moeweld::merge::ties {

namespace {

/// Elements of one call of the kernel: its lists stay in the first-level cache.
constexpr std::size_t kTileOfDoubts = 2048;

std::uint64_t sample_elements(const Task& task) {
  const std::vector<int> inputs = task_vectors(task);
  // Rescaling needs sums under the final mask. A density of 0 drops NaN too, whose order this kernel does not know.
  const std::vector<double> densities = model_parameters(task, kDensity);
  const bool some_kept = std::all_of(densities.begin(), densities.end(), [](double density) { return density > 0; });
  const bool suited = task.output_dtype == DType::kBF16 && all_inputs_are(task, DType::kBF16) && !inputs.empty() &&
                      inputs.size() <= kMostTermsBetween && task.parameters[kRescale] == 0.0 && some_kept;
  if (!suited) return 0;
  const MagnitudeSelection selection(task, inputs);
  return selection.next_phase(started(task, {})) ? selection.sample_elements() : 0;
}

bool guess(const Task& task, std::span<const Elements> sample, Decisions& decisions) {
  decisions = started(task, {});
  return MagnitudeSelection(task, task_vectors(task)).guess(sample, decisions);
}

float decoded(std::uint16_t code) { return std::bit_cast<float>(std::uint32_t{code} << 16); }

/// Lists the doubts of one tile, whose inputs begin at `pointers`. Padding from `valid` on is zero in all inputs: it may lie in a bracket,
/// but no guess is above it.
void list_doubts(const Election<float>& election, const ElectionDoubts& found, std::uint64_t first_element, std::size_t valid,
                 std::span<const std::byte* const> pointers, Doubts& doubts) {
  for (std::size_t k = 0; k < election.inputs.size(); ++k) doubts.counts[k] += found.above[k];
  const std::size_t before = doubts.elements.size();
  std::size_t num = before;
  doubts.elements.resize(before + found.num);
  for (std::size_t i = 0; i < found.num; ++i) {
    doubts.elements[num] = first_element + found.places[i];
    num += found.places[i] < valid ? 1 : 0;
  }
  doubts.elements.resize(num);
  for (std::size_t input = 0; input < pointers.size(); ++input) {
    std::vector<float>& list = doubts.inputs[input];
    list.resize(num);
    const std::byte* tile = pointers[input];
    for (std::size_t i = before; i < num; ++i) {
      std::uint16_t code = 0;
      std::memcpy(&code, tile + (doubts.elements[i] - first_element) * sizeof(code), sizeof(code));
      list[i] = decoded(code);
    }
  }
}

void apply_guess(const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output, Doubts& doubts) {
  Election<float> election(task, decisions);
  const MagnitudeSelection selection(task, election.inputs);
  doubts.counts.resize(election.inputs.size());
  doubts.inputs.resize(task.inputs.size());
  std::array<std::uint32_t, kTileOfDoubts + kDoubtSlack> places;
  for_runs_of_rules(task, elements, output, [&](const Elements& run, std::byte* target) {
    std::vector<KeepRule> above;
    std::vector<KeepRule> within;
    for (std::size_t i = 0; i < election.inputs.size(); ++i) {
      above.push_back(selection.rule_above(decisions, i, run.first_element));
      within.push_back(selection.rule(decisions, i, run.first_element));
    }
    election.kernel.rules = above;
    election.kernel.index_salt = index_salt(task.tensor_key, run.first_element);
    for_padded(task, run, target, sizeof(std::uint16_t), [&](const Elements& part, std::size_t valid, std::byte* part_target) {
      std::vector<const std::byte*> pointers(part.inputs.begin(), part.inputs.end());
      for (std::size_t offset = 0; offset < part.num_elements; offset += kTileOfDoubts) {
        const std::size_t num = std::min<std::size_t>(kTileOfDoubts, part.num_elements - offset);
        election.point_to(task, pointers);
        election.kernel.first_low = static_cast<std::uint32_t>(part.first_element + offset);
        ElectionDoubts found{.places = places.data()};
        elect_between_bf16(election.kernel, within, num, reinterpret_cast<std::uint16_t*>(part_target) + offset, found);
        list_doubts(election, found, part.first_element + offset, valid - offset, pointers, doubts);
        for (const std::byte*& pointer : pointers) pointer += num * sizeof(std::uint16_t);
      }
    });
  });
}

bool settle(const Task& task, std::span<Doubts> doubts, Decisions& decisions) {
  return MagnitudeSelection(task, task_vectors(task)).settle(doubts, decisions);
}

/// A term that goes is given the base's value: its task vector is zero then, as where a rule drops it.
void mend(const Task& task, const Decisions& decisions, const Doubts& doubts, std::size_t first, std::size_t count, std::byte* results) {
  Election<float> election(task, decisions);
  const MagnitudeSelection selection(task, election.inputs);
  const std::vector<KeepRule> keep_all(election.inputs.size());
  election.kernel.rules = keep_all;
  std::vector<std::array<float, kTileElements>> tiles(task.inputs.size(), std::array<float, kTileElements>{});
  std::vector<const void*> pointers;
  for (const auto& tile : tiles) pointers.push_back(tile.data());
  std::array<float, kTileElements> elected;
  std::array<std::uint16_t, kTileElements> encoded;
  const auto base_index = static_cast<std::size_t>(task.base_index);
  for (std::size_t done = 0; done < count; done += kTileElements) {
    const std::size_t num = std::min(kTileElements, count - done);
    std::copy_n(doubts.inputs[base_index].data() + first + done, num, tiles[base_index].begin());
    for (std::size_t k = 0; k < election.inputs.size(); ++k)
      selection.drop(decisions, k, doubts, first + done, num, tiles[static_cast<std::size_t>(election.inputs[k])].data());
    election.point_to(task, pointers);
    elect_signs(election.kernel, kTileElements, elected.data());
    encode(DType::kBF16, elected.data(), kTileElements, NanPolicy::kCanonical, encoded.data());
    std::memcpy(results + done * sizeof(std::uint16_t), encoded.data(), num * sizeof(std::uint16_t));
  }
}

}  // namespace

const Speculation kSpeculation{.sample_elements = sample_elements, .guess = guess, .apply = apply_guess, .settle = settle, .mend = mend};

}  // namespace moeweld::merge::ties
