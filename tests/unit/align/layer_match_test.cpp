#include "moeweld/align/layer_match.h"

#include <gtest/gtest.h>

#include <cmath>

#include "unit/align/experts.h"

namespace moeweld::align {
namespace {

constexpr std::uint64_t kOnlySignatures = 0;

struct Shuffle {
  Layer layer;
  Order experts;
  std::vector<Order> neurons;
};

Shuffle shuffle(const Layer& layer, std::mt19937& random, std::size_t num_groups = 1) {
  const std::size_t size = layer.experts.size();
  const std::size_t members = size / num_groups;
  const Order groups = shuffled(num_groups, random);
  Order order;
  for (std::size_t group = 0; group < num_groups; ++group) {
    for (const std::uint32_t member : shuffled(members, random))
      order.push_back(static_cast<std::uint32_t>(groups[group] * members + member));
  }
  std::vector<Order> neurons;
  for (std::size_t e = 0; e < size; ++e) neurons.push_back(shuffled(layer.experts[e].num_neurons, random));
  return {permuted(layer, order, neurons), order, neurons};
}

/// The match that undoes a shuffle.
void expect_undone(const LayerMatch& match, const Shuffle& shuffle, bool neurons = true) {
  EXPECT_EQ(match.experts, inverse(shuffle.experts));
  if (!neurons) {
    EXPECT_TRUE(match.neurons.empty());
    return;
  }
  ASSERT_EQ(match.neurons.size(), match.experts.size());
  for (std::size_t e = 0; e < match.experts.size(); ++e) EXPECT_EQ(match.neurons[e], inverse(shuffle.neurons[match.experts[e]]));
}

Layer noisy(const Layer& layer, float scale, std::mt19937& random) {
  Layer result = layer;
  for (Expert& expert : result.experts) expert = with_noise(expert, scale, random);
  std::normal_distribution<float> normal(0.0F, scale);
  for (float& value : result.router) value += normal(random);
  return result;
}

TEST(LayerMatch, UndoesAShuffleByRouterByWeightsAndByBoth) {
  std::mt19937 random(21);
  Layer layer = random_layer(8, 20, 30, random);
  for (const Match match : {Match::kRouter, Match::kWeights, Match::kBoth}) {
    for (const std::uint64_t exact_pairs : {kOnlySignatures, ~std::uint64_t{0}}) {
      Shuffle other = shuffle(noisy(layer, 0.01F, random), random);
      const LayerTask task{.num_experts = 8, .hidden = 30, .match = match, .threads = 2, .exact_pairs = exact_pairs};
      const LayerMatch result = LayerMatcher(task, layer.router, layer).match(other.layer.router, other.layer);
      expect_undone(result, other);
      EXPECT_GT(result.after.weights, 0.9);
      EXPECT_GT(result.after.router, 0.9);
      EXPECT_LT(result.before.weights, 0.3);
    }
  }
}

TEST(LayerMatch, AFineTuneOfTheReferenceIsTheIdentity) {
  std::mt19937 random(22);
  Layer layer = random_layer(12, 24, 40, random);
  // Copies of one expert that differ a little, as after upcycling.
  for (std::size_t e = 1; e < 6; ++e) layer.experts[e] = with_noise(layer.experts[0], 0.01F, random);
  Layer tuned = noisy(layer, 0.002F, random);
  for (const std::uint64_t exact_pairs : {kOnlySignatures, ~std::uint64_t{0}}) {
    for (const bool neurons : {false, true}) {
      const LayerTask task{.num_experts = 12, .hidden = 40, .neurons = neurons, .threads = 1, .exact_pairs = exact_pairs};
      const LayerMatch result = LayerMatcher(task, layer.router, layer).match(tuned.router, tuned);
      EXPECT_EQ(result.experts, identity(12));
      for (const Order& order : result.neurons) EXPECT_EQ(order, identity(24));
      EXPECT_DOUBLE_EQ(result.before.weights, result.after.weights);
    }
  }
}

TEST(LayerMatch, WithoutNeuronsExpertsAloneChangePlaces) {
  std::mt19937 random(23);
  Layer layer = random_layer(8, 20, 30, random);
  const Order order = shuffled(8, random);
  Shuffle other{permuted(noisy(layer, 0.01F, random), order, std::vector<Order>(8, identity(20))), order, {}};
  for (const std::uint64_t exact_pairs : {kOnlySignatures, ~std::uint64_t{0}}) {
    const LayerTask task{.num_experts = 8, .hidden = 30, .match = Match::kWeights, .neurons = false, .exact_pairs = exact_pairs};
    expect_undone(LayerMatcher(task, layer.router, layer).match(other.layer.router, other.layer), other, false);
  }
}

TEST(LayerMatch, KeepsRoutingGroupsTogether) {
  std::mt19937 random(24);
  Layer layer = random_layer(12, 16, 24, random);
  Shuffle within = shuffle(layer, random, 4);
  const LayerTask task{.num_experts = 12, .num_groups = 4, .hidden = 24};
  expect_undone(LayerMatcher(task, layer.router, layer).match(within.layer.router, within.layer), within);
  // Experts 0 and 11 of different groups changed places: that cannot be undone, all others stay.
  Order order = identity(12);
  std::swap(order[0], order[11]);
  Layer across = permuted(layer, order, std::vector<Order>(12, identity(16)));
  EXPECT_EQ(LayerMatcher(task, layer.router, layer).match(across.router, across).experts, identity(12));
}

/// One vector added to all rows of a router changes nothing after softmax, so it must not change the match.
TEST(LayerMatch, TheMeanRouterRowDoesNotCount) {
  std::mt19937 random(25);
  Layer layer = random_layer(6, 8, 16, random);
  Shuffle other = shuffle(layer, random);
  std::normal_distribution<float> normal(0.0F, 5.0F);
  for (std::size_t h = 0; h < 16; ++h) {
    const float shift = normal(random);
    for (std::size_t e = 0; e < 6; ++e) other.layer.router[e * 16 + h] += shift;
  }
  const LayerTask task{.num_experts = 6, .hidden = 16, .match = Match::kRouter};
  const LayerMatch result = LayerMatcher(task, layer.router, layer).match(other.layer.router, other.layer);
  expect_undone(result, other);
  EXPECT_NEAR(result.after.router, 1.0, 1e-5);
  EXPECT_NEAR(result.after.weights, 1.0, 1e-6);
}

TEST(LayerMatch, SimilaritiesAreCosinesOfAllExpertsTogether) {
  std::mt19937 random(26);
  Layer a = random_layer(5, 7, 9, random);
  Layer b = random_layer(5, 7, 9, random);
  const LayerTask task{.num_experts = 5, .hidden = 9};
  const LayerMatch result = LayerMatcher(task, a.router, a).match(b.router, b);
  const auto cosine = [&](const Order& experts, const std::vector<Order>& neurons) {
    double ab = 0;
    double aa = 0;
    double bb = 0;
    for (std::size_t e = 0; e < 5; ++e) {
      for (std::size_t n = 0; n < 7; ++n) {
        const std::vector<double> x = a.experts[e].neuron(n);
        const std::vector<double> y = b.experts[experts[e]].neuron(neurons[e][n]);
        for (std::size_t k = 0; k < x.size(); ++k) {
          ab += x[k] * y[k];
          aa += x[k] * x[k];
          bb += y[k] * y[k];
        }
      }
    }
    return ab / std::sqrt(aa * bb);
  };
  EXPECT_NEAR(result.before.weights, cosine(identity(5), std::vector<Order>(5, identity(7))), 1e-9);
  EXPECT_NEAR(result.after.weights, cosine(result.experts, result.neurons), 1e-9);
  EXPECT_GE(result.after.router + result.after.weights, result.before.router + result.before.weights);
}

}  // namespace
}  // namespace moeweld::align
