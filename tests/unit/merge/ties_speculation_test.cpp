/// ties applied under a guess gives the bytes of ties that was measured first, whatever the guess is worth.

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <numbers>

#include "unit/merge/arrays.h"

namespace moeweld::merge {
namespace {

constexpr std::uint64_t kSeed = 20261125;
/// The smallest tensor that is worth a guess, and a rest that no vector divides.
constexpr std::size_t kCount = (std::size_t{1} << 20) + 4099;

struct Outcome {
  bool guessed = false;
  bool settled = false;
  std::size_t doubts = 0;
  std::vector<std::byte> bytes;
};

/// As a rank does it: 16 chunks of sample, slices of unlike lengths, then mending or measuring on.
Outcome speculate(const Case& merge_case, std::size_t num_parts = static_cast<std::size_t>(omp_get_max_threads())) {
  const MethodRow& method = *merge_case.method;
  const Task& task = merge_case.task;
  Outcome outcome;
  std::vector<std::vector<const std::byte*>> pointers;
  std::vector<Elements> chunks;
  const std::size_t chunk = method.speculation->sample_elements(task) / 16 / 64 * 64;
  for (std::size_t i = 0; i < 16; ++i) {
    const std::size_t first = i * (merge_case.size() / 16) / 64 * 64;
    std::vector<const std::byte*>& inputs = pointers.emplace_back();
    for (const std::byte* input : merge_case.pointers) inputs.push_back(input + first * 2);
    chunks.push_back({.first_element = first, .num_elements = chunk, .inputs = {}});
  }
  for (std::size_t i = 0; i < chunks.size(); ++i) chunks[i].inputs = pointers[i];
  Decisions decisions;
  outcome.guessed = method.speculation->guess(task, chunks, decisions);
  if (!outcome.guessed) return outcome;
  outcome.bytes.resize(merge_case.size() * 2);
  std::vector<Doubts> doubts(num_parts);
  for (std::size_t first = 0, part = 70001; first < merge_case.size(); first += part) {
    std::vector<const std::byte*> inputs;
    for (const std::byte* input : merge_case.pointers) inputs.push_back(input + first * 2);
    apply_guess(method, task, decisions,
                {.first_element = first, .num_elements = std::min(part, merge_case.size() - first), .inputs = inputs},
                outcome.bytes.data() + first * 2, doubts);
  }
  for (const Doubts& list : doubts) outcome.doubts += list.elements.size();
  outcome.settled = method.speculation->settle(task, doubts, decisions);
  if (outcome.settled) {
    mend_doubts(method, task, decisions, doubts, [&](std::span<const std::uint64_t> elements, const std::byte* results) {
      for (std::size_t i = 0; i < elements.size(); ++i) std::memcpy(outcome.bytes.data() + elements[i] * 2, results + i * 2, 2);
    });
    return outcome;
  }
  while (const auto phase = method.next_phase(task, decisions)) {
    std::vector<PhasePartial> partials(1);
    measure_blocks(method, task, decisions, *phase, merge_case.whole(), partials[0]);
    decide_phase(method, task, *phase, std::move(partials), decisions);
  }
  apply_elements(method, task, decisions, merge_case.whole(), outcome.bytes.data());
  return outcome;
}

Case fine_tunes(const std::vector<double>& base, std::vector<std::vector<double>> others, std::vector<double> densities,
                bool normalize = true) {
  std::vector<Array> arrays;
  arrays.emplace_back(DType::kBF16, base);
  std::vector<Parameters> per_model(1);
  for (std::size_t k = 0; k < others.size(); ++k) {
    arrays.emplace_back(DType::kBF16, std::move(others[k]));
    per_model.push_back({{"weight", 0.7 - 0.3 * static_cast<double>(k)}, {"density", densities[k]}});
  }
  return Case("ties", DType::kBF16, std::move(arrays), 0, {{"normalize", normalize}, {"lambda", 0.9}}, per_model);
}

TEST(TiesSpeculation, GivesTheBytesOfMeasuringFirst) {
  std::mt19937_64 engine(kSeed);
  const std::vector<double> base = normals(engine, kCount);
  for (const std::vector<double>& densities :
       std::vector<std::vector<double>>{{0.5}, {0.3, 0.7}, {1.0, 0.01}, {0.9, 0.2, 0.5}, {0.5, 0.5, 0.5, 0.1}}) {
    std::vector<std::vector<double>> others;
    for (std::size_t k = 0; k < densities.size(); ++k) others.push_back(near(engine, base));
    const Case merge_case = fine_tunes(base, std::move(others), densities, densities.size() != 3);
    const Outcome outcome = speculate(merge_case);
    EXPECT_TRUE(outcome.guessed && outcome.settled) << densities.size() << " models";
    EXPECT_LT(outcome.doubts, kCount / 8);
    EXPECT_EQ(outcome.bytes, merge_case.run_bytes()) << densities.size() << " models";
  }
}

TEST(TiesSpeculation, AmongEqualMagnitudesToo) {
  std::mt19937_64 engine(kSeed + 1);
  const std::vector<double> base(kCount, 0.0);
  std::vector<double> other(kCount);
  for (double& value : other) value = static_cast<double>(engine() % 3) * 0.25 - 0.25;  // a third is zero, the rest equal in size
  const Case merge_case = fine_tunes(base, {other}, {0.4});
  const Outcome outcome = speculate(merge_case);
  EXPECT_TRUE(outcome.guessed && outcome.settled);
  EXPECT_EQ(outcome.bytes, merge_case.run_bytes());
  const std::vector<double> values = values_of(DType::kBF16, outcome.bytes);
  EXPECT_EQ(std::count_if(values.begin(), values.end(), [](double value) { return value != 0; }),
            static_cast<std::ptrdiff_t>(std::floor(0.4 * kCount)));
}

// The sample sees none of the large magnitudes, all of which lie between its chunks.
TEST(TiesSpeculation, AMisleadingSampleIsNoticedAndCostsOnlyTime) {
  std::mt19937_64 engine(kSeed + 2);
  const std::vector<double> base = normals(engine, kCount);
  std::vector<double> other = near(engine, base);
  const std::size_t period = kCount / 16;
  for (std::size_t i = 0; i < kCount; ++i) {
    if (i % period > period / 2) other[i] = base[i] + 10 * (other[i] - base[i]);
  }
  const Case merge_case = fine_tunes(base, {other}, {0.3});
  const Outcome outcome = speculate(merge_case);
  EXPECT_TRUE(outcome.guessed);
  EXPECT_FALSE(outcome.settled);
  EXPECT_EQ(outcome.bytes, merge_case.run_bytes());
}

// Lists of doubts say how many threads there are, whatever OpenMP was told.
TEST(TiesSpeculation, TakesAsManyThreadsAsThereAreLists) {
  std::mt19937_64 engine(kSeed + 5);
  const std::vector<double> base = normals(engine, kCount);
  const Case merge_case = fine_tunes(base, {near(engine, base)}, {0.5});
  for (const std::size_t num_parts : {std::size_t{1}, std::size_t{3}}) {
    const Outcome outcome = speculate(merge_case, num_parts);
    EXPECT_TRUE(outcome.guessed && outcome.settled);
    EXPECT_EQ(outcome.bytes, merge_case.run_bytes());
  }
}

TEST(TiesSpeculation, NotANumberAndInfinityStayWhereTheyAre) {
  std::mt19937_64 engine(kSeed + 3);
  std::vector<double> base = normals(engine, kCount);
  std::vector<double> one = near(engine, base);
  std::vector<double> two = near(engine, base);
  one[77] = std::numeric_limits<double>::infinity();
  base[100'000] = -std::numeric_limits<double>::infinity();
  Case merge_case = fine_tunes(base, {one, two}, {0.5, 0.5});
  const std::uint16_t not_a_number = 0xFFC1;
  std::memcpy(merge_case.arrays[2].bytes.data() + 2 * 500'001, &not_a_number, 2);
  const Outcome outcome = speculate(merge_case);
  EXPECT_TRUE(outcome.guessed && outcome.settled);
  EXPECT_EQ(outcome.bytes, merge_case.run_bytes());
}

TEST(TiesSpeculation, RefusesToGuessWhereMostTaskVectorsAreZero) {
  std::mt19937_64 engine(kSeed + 4);
  const std::vector<double> base = normals(engine, kCount);
  std::vector<double> other = base;
  for (std::size_t i = 0; i < kCount; i += 10) other[i] += 0.25;
  EXPECT_FALSE(speculate(fine_tunes(base, {other}, {0.5})).guessed);
}

TEST(TiesSpeculation, IsForSuitedTasksOnly) {
  const Case small("ties", DType::kBF16, {Array(DType::kBF16, {1, 2}), Array(DType::kBF16, {1, 3})}, 0, {},
                   {{}, {{"weight", 1}, {"density", 0.5}}});
  EXPECT_EQ(small.method->speculation->sample_elements(small.task), 0u);
  for (const auto& [parameter, value] : Parameters{{"rescale", 1}}) {
    Case large = fine_tunes(std::vector<double>(4), {std::vector<double>(4)}, {0.5});
    large.task.shape = {1 << 12, 1 << 12};
    EXPECT_GT(large.method->speculation->sample_elements(large.task), 0u);
    large.task.parameters = in_order(large.method->shared_parameters, {{parameter, value}});
    EXPECT_EQ(large.method->speculation->sample_elements(large.task), 0u) << parameter;
  }
  Case wide = fine_tunes(std::vector<double>(4), {std::vector<double>(4)}, {0.5});
  wide.task.shape = {1 << 12, 1 << 12};
  wide.task.output_dtype = DType::kF32;
  EXPECT_EQ(wide.method->speculation->sample_elements(wide.task), 0u);
}

}  // namespace
}  // namespace moeweld::merge
