#include "moeweld/align/assignment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace moeweld::align {
namespace {

using Order = std::vector<std::uint32_t>;

/// The first, in lexicographic order, of all permutations with the largest sum among those that `allowed` lets through.
template <class Allowed>
Order best_by_trying(const std::vector<float>& similarity, std::size_t size, const Allowed& allowed) {
  Order order(size);
  std::iota(order.begin(), order.end(), 0U);
  Order best;
  double most = 0;
  do {
    if (!allowed(order)) continue;
    double sum = 0;
    for (std::size_t i = 0; i < size; ++i) sum += similarity[i * size + order[i]];
    if (best.empty() || sum > most) {
      best = order;
      most = sum;
    }
  } while (std::next_permutation(order.begin(), order.end()));
  return best;
}

bool keeps_groups(const Order& order, std::size_t num_groups) {
  const std::size_t members = order.size() / num_groups;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (order[i] / members != order[i / members * members] / members) return false;
  }
  return true;
}

TEST(Assignment, IsTheBestOfAllPermutations) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (std::size_t size = 1; size <= 7; ++size) {
    for (int round = 0; round < 40; ++round) {
      std::vector<float> similarity(size * size);
      for (float& value : similarity) value = normal(random);
      EXPECT_EQ(assign(similarity, size), best_by_trying(similarity, size, [](const Order&) { return true; }));
    }
  }
}

TEST(Assignment, TiesGoToTheLowestIndex) {
  std::mt19937 random(2);
  for (int round = 0; round < 300; ++round) {
    const std::size_t size = 1 + random() % 6;
    std::vector<float> similarity(size * size);
    for (float& value : similarity) value = static_cast<float>(random() % 3) - 1.0F;  // few values: many ties
    EXPECT_EQ(assign(similarity, size), best_by_trying(similarity, size, [](const Order&) { return true; })) << "round " << round;
  }
}

TEST(Assignment, NothingToTellGivesTheIdentity) {
  for (const float value : {0.0F, 0.25F, -3.0F}) {
    const Order order = assign(std::vector<float>(50 * 50, value), 50);
    for (std::size_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i], i);
  }
  EXPECT_TRUE(assign({}, 0).empty());
}

TEST(Assignment, FindsAShuffleAmongMany) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> noise(0.0F, 0.9F);
  constexpr std::size_t kSize = 300;
  Order shuffle(kSize);
  std::iota(shuffle.begin(), shuffle.end(), 0U);
  std::shuffle(shuffle.begin(), shuffle.end(), random);
  std::vector<float> similarity(kSize * kSize);
  for (float& value : similarity) value = noise(random);
  for (std::size_t i = 0; i < kSize; ++i) similarity[i * kSize + shuffle[i]] = 1.0F;
  EXPECT_EQ(assign(similarity, kSize), shuffle);
}

/// Weak duality: with any numbers u and v such that u_i + v_j is at least every similarity, no assignment is better than their sum. Here
/// they come from a few hundred rounds of the auction that the solver does not use.
TEST(Assignment, LargeRandomOnesAreWithinAnAuctionsBound) {
  std::mt19937 random(4);
  std::uniform_int_distribution<int> values(0, 1000);
  constexpr std::size_t kSize = 60;
  std::vector<float> similarity(kSize * kSize);
  for (float& value : similarity) value = static_cast<float>(values(random));
  const Order order = assign(similarity, kSize);
  double sum = 0;
  for (std::size_t i = 0; i < kSize; ++i) sum += similarity[i * kSize + order[i]];
  // Auction with bids of 1 / (size + 1): its end is optimal for whole numbers.
  const double step = 1.0 / (kSize + 1);
  std::vector<double> price(kSize);
  std::vector<int> owner(kSize, -1);
  std::vector<std::size_t> waiting(kSize);
  std::iota(waiting.begin(), waiting.end(), 0U);
  while (!waiting.empty()) {
    const std::size_t row = waiting.back();
    waiting.pop_back();
    std::size_t best = 0;
    double first = -1e300;
    double second = -1e300;
    for (std::size_t column = 0; column < kSize; ++column) {
      const double value = similarity[row * kSize + column] - price[column];
      if (value > first) {
        second = first;
        first = value;
        best = column;
      } else {
        second = std::max(second, value);
      }
    }
    price[best] += first - second + step;
    if (owner[best] >= 0) waiting.push_back(static_cast<std::size_t>(owner[best]));
    owner[best] = static_cast<int>(row);
  }
  double auction = 0;
  for (std::size_t column = 0; column < kSize; ++column) auction += similarity[static_cast<std::size_t>(owner[column]) * kSize + column];
  EXPECT_EQ(sum, auction);
}

TEST(Assignment, GroupsChangePlacesWhole) {
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    const std::size_t num_groups = 1 + random() % 3;
    const std::size_t size = num_groups * (1 + random() % 2 + (num_groups < 3 ? 1 : 0));
    std::vector<float> similarity(size * size);
    for (float& value : similarity) value = round % 2 == 0 ? static_cast<float>(random() % 4) : static_cast<float>(random() % 1000);
    const Order order = assign_in_groups(similarity, size, num_groups);
    EXPECT_TRUE(keeps_groups(order, num_groups));
    const Order best = best_by_trying(similarity, size, [&](const Order& tried) { return keeps_groups(tried, num_groups); });
    if (round % 2 == 0) {
      double ours = 0;
      double most = 0;
      for (std::size_t i = 0; i < size; ++i) {
        ours += similarity[i * size + order[i]];
        most += similarity[i * size + best[i]];
      }
      EXPECT_EQ(ours, most);
    } else {
      EXPECT_EQ(order, best);
    }
  }
}

}  // namespace
}  // namespace moeweld::align
