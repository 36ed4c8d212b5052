#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "infer/head.h"
#include "infer/packing.h"
#include "infer/plane.h"
#include "infer/rotary.h"
#include "infer/routing.h"

namespace moeweld::infer {
namespace {

void expect_frequencies(const model::RopeSpec& rope, std::uint64_t length, const std::vector<double>& expected) {
  const std::vector<float> actual = rotary_frequencies(rope, length);
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i] / expected[i], 1.0, 2e-6) << i;
}

// Expected values: inv_freq of transformers 5.23's ROPE_INIT_FUNCTIONS for these configs (tests/interop compares whole models).
model::RopeSpec rope(model::RopeType type) {
  return {.type = type, .theta = 10000.0, .rotary_dim = 8, .factor = 4.0, .max_positions = 64, .original_max_positions = 64};
}

TEST(Rotary, DefaultFrequenciesFallGeometrically) { expect_frequencies(rope(model::RopeType::kDefault), 1000, {1.0, 0.1, 0.01, 0.001}); }

TEST(Rotary, LinearDividesByTheFactor) { expect_frequencies(rope(model::RopeType::kLinear), 1000, {0.25, 0.025, 0.0025, 0.00025}); }

TEST(Rotary, DynamicStretchesThetaOnlyBeyondTheTrainedLength) {
  expect_frequencies(rope(model::RopeType::kDynamic), 64, {1.0, 0.1, 0.01, 0.001});
  // theta · (4 · 128 / 64 - 3)^(8 / 6) = 10000 · 5^(4/3)
  const double theta = 10000.0 * std::pow(5.0, 4.0 / 3.0);
  expect_frequencies(rope(model::RopeType::kDynamic), 128, {1.0, std::pow(theta, -0.25), std::pow(theta, -0.5), std::pow(theta, -0.75)});
}

TEST(Rotary, Llama3KeepsShortWavesDividesLongOnesAndBlendsBetween) {
  model::RopeSpec spec = rope(model::RopeType::kLlama3);
  // Wavelengths 6.28, 62.8, 628, 6283 against 64/4 = 16 (shorter: kept) and 64/0.5 = 128 (longer: divided).
  spec.low_freq_factor = 0.5;
  spec.high_freq_factor = 4.0;
  const double smooth = (64 / (2 * M_PI / 0.1) - 0.5) / 3.5;
  expect_frequencies(spec, 10, {1.0, (1 - smooth) * 0.1 / 4 + smooth * 0.1, 0.0025, 0.00025});
}

TEST(Rotary, YarnKeepsFastPairsDividesSlowOnesAndRampsBetween) {
  model::RopeSpec spec = rope(model::RopeType::kYarn);
  spec.beta_fast = 8;
  spec.beta_slow = 1;
  // 8 ln(64 / (8 · 2π)) / (2 ln 10000) = 0.105 → 0; 8 ln(64 / 2π) / (2 ln 10000) = 1.008 → 2: ramp 0, 1/2, 1, 1.
  expect_frequencies(spec, 10, {1.0, 0.1 / 4 * 0.5 + 0.1 * 0.5, 0.0025, 0.00025});
}

TEST(Rotary, PartialRotationLeavesTheRestOfAHead) {
  const RotaryTable table({.theta = 10000.0, .rotary_dim = 4, .max_positions = 64, .original_max_positions = 64, .attention_factor = 2.0},
                          4);
  std::vector<float> head = {1, 2, 3, 4, 5, 6};
  table.rotate(3, head.data());
  EXPECT_NEAR(head[0], 2 * (1 * std::cos(3.0) - 3 * std::sin(3.0)), 1e-5);
  EXPECT_NEAR(head[2], 2 * (3 * std::cos(3.0) + 1 * std::sin(3.0)), 1e-5);
  EXPECT_NEAR(head[1], 2 * (2 * std::cos(0.03) - 4 * std::sin(0.03)), 1e-5);
  EXPECT_EQ(head[4], 5);
  EXPECT_EQ(head[5], 6);
}

TEST(Routing, TakesTheHighestAndTheLowerIndexAmongEquals) {
  std::vector<std::uint32_t> experts;
  std::vector<float> weights;
  const std::vector<float> logits = {0.0F, 1.0F, 1.0F, -2.0F};
  choose_experts(logits, 2, true, experts, weights);
  EXPECT_EQ(experts, (std::vector<std::uint32_t>{1, 2}));
  EXPECT_EQ(weights, (std::vector<float>{0.5F, 0.5F}));
  choose_experts(logits, 1, false, experts, weights);
  EXPECT_EQ(experts, (std::vector<std::uint32_t>{1}));
  EXPECT_NEAR(weights[0], std::exp(1.0) / (1 + 2 * std::exp(1.0) + std::exp(-2.0)), 1e-7);
}

TEST(Routing, NanIsNeverPreferred) {
  std::vector<std::uint32_t> experts;
  std::vector<float> weights;
  choose_experts(std::vector<float>{std::numeric_limits<float>::quiet_NaN(), -5.0F, 3.0F}, 2, true, experts, weights);
  EXPECT_EQ(experts, (std::vector<std::uint32_t>{2, 1}));
}

TEST(Packing, TilesNeverCrossPacksSoThatTheNumberOfPacksAtOnceDoesNotMatter) {
  const std::vector<TokenIds> sequences = {TokenIds(300), TokenIds(300), TokenIds(10), TokenIds(2000), TokenIds(5)};
  const std::vector<Pack> packs = make_packs(sequences);
  ASSERT_EQ(packs.size(), 3U);
  EXPECT_EQ(packs[0].num_tokens, 600U);
  EXPECT_EQ(packs[1].num_tokens, 2010U);
  const Batch all = make_batch(sequences, packs);
  std::vector<std::uint64_t> lengths;
  for (const TokenTile& tile : all.tiles) lengths.push_back(tile.end - tile.begin);
  std::vector<std::uint64_t> separate;
  for (const Pack& pack : packs) {
    for (const TokenTile& tile : make_batch(sequences, std::span(&pack, 1)).tiles) separate.push_back(tile.end - tile.begin);
  }
  EXPECT_EQ(lengths, separate);
  EXPECT_EQ(std::accumulate(lengths.begin(), lengths.end(), std::uint64_t{0}), 2615U);
}

TEST(SplitByCost, CoversEverythingInOrderAndEvenly) {
  const std::vector<std::uint64_t> costs = {1, 1, 1, 1, 4, 4, 4, 4, 100, 1};
  for (const int ranks : {1, 2, 3, 4, 7, 20}) {
    const std::vector<std::uint64_t> begins = split_by_cost(costs, ranks);
    ASSERT_EQ(begins.size(), static_cast<std::size_t>(ranks) + 1);
    EXPECT_EQ(begins.front(), 0U);
    EXPECT_EQ(begins.back(), costs.size());
    EXPECT_TRUE(std::is_sorted(begins.begin(), begins.end()));
  }
  EXPECT_EQ(split_by_cost(std::vector<std::uint64_t>(8, 5), 4), (std::vector<std::uint64_t>{0, 2, 4, 6, 8}));
  EXPECT_EQ(split_by_cost(std::vector<std::uint64_t>{}, 3), (std::vector<std::uint64_t>{0, 0, 0, 0}));
}

TEST(Head, PartialsFoldToTheWholeVocabulary) {
  const auto partial = [](double sum, float highest, std::uint32_t id) {
    HeadPartial result;
    result.sum = sum;
    result.highest = highest;
    result.id = id;
    return result;
  };
  // {1, 3}, {3, 0}: the first 3 wins; Σ exp = e + 2e³ + 1.
  const HeadResult result =
      fold_partials(std::vector<HeadPartial>{partial(1 + std::exp(-2.0), 3.0F, 1), partial(1 + std::exp(-3.0), 3.0F, 2)});
  EXPECT_EQ(result.id, 1U);
  EXPECT_NEAR(result.log_sum, std::log(std::exp(1.0) + 2 * std::exp(3.0) + 1), 1e-12);
}

}  // namespace
}  // namespace moeweld::infer
