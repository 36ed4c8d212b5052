#include "moeweld/merge/expert_variation.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "moeweld/base/random.h"
#include "moeweld/merge/measure.h"
#include "moeweld/merge/simd_target.h"

namespace moeweld::merge {
namespace {

constexpr std::uint64_t kRows = 700;
constexpr std::uint64_t kColumns = 1001;  // no multiple of a block or of a vector
constexpr std::uint64_t kSeed = 7;

std::vector<float> some_values() {
  std::vector<float> values(kRows * kColumns);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.5F * std::sin(0.37F * static_cast<float>(i)) + 0.1F;
  return values;
}

Task task_of(const ExpertVariation& variation, DType input, DType output) {
  Task task;
  task.shape = {kRows, kColumns};
  task.output_dtype = output;
  task.inputs = {{input, {}}};
  task.tensor_key = stream_id("some.tensor");
  task.seed = kSeed;
  set_variation(variation, task);
  return task;
}

std::vector<float> run_f32(const Task& task, const std::vector<float>& values) {
  std::vector<float> result(values.size());
  const std::byte* input = reinterpret_cast<const std::byte*>(values.data());
  const Elements whole{.first_element = 0, .num_elements = values.size(), .inputs = std::span(&input, 1)};
  apply_elements(expert_variation(), task, measure_all(expert_variation(), task, whole), whole,
                 reinterpret_cast<std::byte*>(result.data()));
  return result;
}

TEST(ExpertVariation, AddsNoiseOfTheStatedSizeAndThenScales) {
  const std::vector<float> values = some_values();
  const Task task = task_of({.groups = {{.noise_scale = 0.25, .scale = -3, .num_neurons = kRows}}}, DType::kF32, DType::kF32);
  const std::vector<float> result = run_f32(task, values);
  double sum = 0;
  double squares = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double noise = 0.25 * normal({kSeed, stream_id("some.tensor")}, i);
    ASSERT_EQ(result[i], static_cast<float>((values[i] + noise) * -3.0)) << i;
    sum += result[i] / -3.0 - values[i];
    squares += std::pow(result[i] / -3.0 - values[i], 2);
  }
  const auto count = static_cast<double>(values.size());
  EXPECT_NEAR(sum / count, 0, 0.002);
  EXPECT_NEAR(std::sqrt(squares / count), 0.25, 0.002);
}

// Shared experts of unlike scales, one below the other (gate, up) or side by side (down).
TEST(ExpertVariation, GroupsOfNeuronsHaveScalesOfTheirOwn) {
  const std::vector<float> values = some_values();
  for (const NeuronAxis axis : {NeuronAxis::kRows, NeuronAxis::kColumns}) {
    const std::uint64_t neurons = axis == NeuronAxis::kRows ? kRows : kColumns;
    const Task task = task_of({.axis = axis,
                               .groups = {{.scale = 2, .num_neurons = 100},
                                          {.noise_scale = 1, .scale = 1, .num_neurons = 200},
                                          {.scale = 0.5, .num_neurons = neurons - 300}}},
                              DType::kF32, DType::kF32);
    const std::vector<float> result = run_f32(task, values);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint64_t neuron = axis == NeuronAxis::kRows ? i / kColumns : i % kColumns;
      double expected = values[i];
      if (neuron < 100) {
        expected *= 2;
      } else if (neuron < 300) {
        expected += normal({kSeed, stream_id("some.tensor")}, i);
      } else {
        expected *= 0.5;
      }
      ASSERT_EQ(result[i], static_cast<float>(expected)) << i;
    }
  }
}

TEST(ExpertVariation, RedrawsTheRatioOfNeuronsFromTheMomentsOfWhatTheyReplace) {
  const std::vector<float> values = some_values();
  for (const NeuronAxis axis : {NeuronAxis::kRows, NeuronAxis::kColumns}) {
    const std::uint64_t neurons = axis == NeuronAxis::kRows ? kRows : kColumns;
    const Task task =
        task_of({.axis = axis, .redrawn_ratio = 0.3, .neuron_set = 5, .groups = {{.num_neurons = neurons}}}, DType::kF32, DType::kF32);
    const std::vector<std::uint8_t> redrawn = redrawn_neurons(kSeed, 5, neurons, 0.3);
    EXPECT_EQ(std::accumulate(redrawn.begin(), redrawn.end(), 0U), std::llround(0.3 * static_cast<double>(neurons)));
    const std::vector<float> result = run_f32(task, values);
    double count = 0, mean = 0, square = 0, new_mean = 0, new_square = 0;
    const auto is_redrawn = [&](std::size_t i) { return redrawn[axis == NeuronAxis::kRows ? i / kColumns : i % kColumns] != 0; };
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!is_redrawn(i)) {
        ASSERT_EQ(result[i], values[i]) << i;
        continue;
      }
      ASSERT_NE(result[i], values[i]) << i;
      count += 1;
      mean += values[i];
      new_mean += result[i];
    }
    mean /= count;
    new_mean /= count;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!is_redrawn(i)) continue;
      square += std::pow(values[i] - mean, 2);
      new_square += std::pow(result[i] - new_mean, 2);
    }
    const double deviation = std::sqrt(square / count);
    EXPECT_NEAR(new_mean, mean, 4 * deviation / std::sqrt(count));
    EXPECT_NEAR(std::sqrt(new_square / count), deviation, 0.01 * deviation);
    // Standardised with the true moments they are the normals of the stream, so the moments are those of the replaced elements alone.
    const Decisions decisions = [&] {
      const std::byte* input = reinterpret_cast<const std::byte*>(values.data());
      return measure_all(expert_variation(), task, {.first_element = 0, .num_elements = values.size(), .inputs = std::span(&input, 1)});
    }();
    EXPECT_NEAR(decisions.reals[0], mean, 1e-12);
    EXPECT_NEAR(decisions.reals[1], deviation, 1e-12);
  }
}

TEST(ExpertVariation, ChoosesOtherNeuronsForOtherExpertsAndSeeds) {
  const auto chosen = redrawn_neurons(1, 2, 1000, 0.5);
  EXPECT_EQ(chosen, redrawn_neurons(1, 2, 1000, 0.5));
  EXPECT_NE(chosen, redrawn_neurons(1, 3, 1000, 0.5));
  EXPECT_NE(chosen, redrawn_neurons(2, 2, 1000, 0.5));
  EXPECT_EQ(redrawn_neurons(1, 2, 10, 0), std::vector<std::uint8_t>(10, 0));
  EXPECT_EQ(redrawn_neurons(1, 2, 10, 1), std::vector<std::uint8_t>(10, 1));
}

TEST(ExpertVariation, SameBytesOnEveryTargetThreadAndCut) {
  const std::vector<float> values = some_values();
  std::vector<std::uint16_t> halves(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) halves[i] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(values[i]) >> 16);
  const Task task =
      task_of({.axis = NeuronAxis::kColumns, .redrawn_ratio = 0.5, .groups = {{.noise_scale = 0.1, .scale = 1.7, .num_neurons = kColumns}}},
              DType::kBF16, DType::kBF16);
  const std::byte* input = reinterpret_cast<const std::byte*>(halves.data());
  const Elements whole{.first_element = 0, .num_elements = halves.size(), .inputs = std::span(&input, 1)};
  std::vector<std::uint16_t> expected;
  const std::string before = active_simd_target();
  for (const std::string& target : available_simd_targets()) {
    choose_simd_target(target);
    for (const int threads : {1, 3}) {
      omp_set_num_threads(threads);
      const Decisions decisions = measure_all(expert_variation(), task, whole);
      for (const std::uint64_t cut : {std::uint64_t{halves.size()}, std::uint64_t{100'003}}) {
        std::vector<std::uint16_t> result(halves.size());
        for (std::uint64_t first = 0; first < halves.size(); first += cut) {
          const std::byte* part = input + first * 2;
          apply_elements(
              expert_variation(), task, decisions,
              {.first_element = first, .num_elements = std::min<std::size_t>(cut, halves.size() - first), .inputs = std::span(&part, 1)},
              reinterpret_cast<std::byte*>(result.data() + first));
        }
        if (expected.empty()) expected = result;
        EXPECT_EQ(result, expected) << target << ", " << threads << " threads, cut " << cut;
      }
    }
  }
  choose_simd_target(before);
}

}  // namespace
}  // namespace moeweld::merge
