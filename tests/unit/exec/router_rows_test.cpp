#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <random>

#include "exec/hidden_rows.h"
#include "exec/orthogonal_rows.h"
#include "exec/prepare.h"
#include "exec/router_condition.h"
#include "moeweld/base/random.h"
#include "unit/expect_error.h"
#include "unit/infer/small_model.h"

namespace moeweld::exec {
namespace {

using infer::NaiveForward;
using infer::SmallModel;
using plan::Slot;

/// Two routed experts and two shared ones with a gate, in layers 0 and 2 of three.
Slot make_slot(const SmallModel& small, Slot::State state) {
  Slot slot;
  slot.kind = Slot::Kind::kHiddenRouter;
  slot.state = state;
  slot.layers = {0, 2};
  slot.base = small.model;
  slot.num_shared = 2;
  slot.shape = {2 * 3, small.model.hidden_size};
  slot.positive_ids = {{{1, 2, 3}, {7}}, {{4, 5}}, {{1, 2, 3}}, {{8, 8, 8, 8}}};
  slot.negative_ids = {{}, {{1, 2, 3}, {9, 10}}, {}, {}};
  return slot;
}

std::vector<double> unit(std::vector<double> row) {
  double sum = 0;
  for (const double value : row) sum += value * value;
  for (double& value : row) value /= std::sqrt(sum);
  return row;
}

/// Straight from the definition.
std::vector<double> naive_rows(const SmallModel& small, const Slot& slot) {
  const NaiveForward forward(small);
  const auto mean_state = [&](const std::vector<std::vector<std::int64_t>>& prompts, std::size_t layer) {
    std::vector<double> mean(small.model.hidden_size);
    for (const auto& prompt : prompts) {
      const infer::NaiveResult result = forward.run(prompt);
      const infer::Rows& tokens = slot.state == Slot::State::kRouterInput ? result.router_inputs[layer] : result.layer_inputs[layer];
      for (std::size_t i = 0; i < mean.size(); ++i) {
        double value = 0;
        for (const infer::Vector& token : tokens) value += token[i] / static_cast<double>(tokens.size());
        mean[i] += (slot.state == Slot::State::kMeanOfTokens ? value : tokens.back()[i]) / static_cast<double>(prompts.size());
      }
    }
    return mean;
  };
  std::vector<double> rows;
  for (const std::uint32_t layer : slot.layers) {
    std::vector<double> gate(small.model.hidden_size);
    for (std::size_t expert = 0; expert < slot.positive_ids.size(); ++expert) {
      std::vector<double> row = mean_state(slot.positive_ids[expert], layer);
      const std::vector<double> negative = mean_state(slot.negative_ids[expert], layer);
      for (std::size_t i = 0; i < row.size(); ++i) row[i] -= negative[i];
      row = unit(row);
      if (expert < 2) {
        rows.insert(rows.end(), row.begin(), row.end());
      } else {
        for (std::size_t i = 0; i < row.size(); ++i) gate[i] += row[i] / 2;
      }
    }
    gate = unit(gate);
    rows.insert(rows.end(), gate.begin(), gate.end());
  }
  return rows;
}

TEST(HiddenRows, AreTheirDefinitionInEveryState) {
  const SmallModel small({.layers = 3});
  for (const Slot::State state : {Slot::State::kLastToken, Slot::State::kMeanOfTokens, Slot::State::kRouterInput}) {
    const Slot slot = make_slot(small, state);
    std::string core;
    const auto alone = make_single_peer();
    const std::vector<double> rows = hidden_rows(*alone, *small.storage, slot, {}, core);
    EXPECT_FALSE(core.empty());
    const std::vector<double> expected = naive_rows(small, slot);
    ASSERT_EQ(rows.size(), expected.size());
    for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_NEAR(rows[i], expected[i], 1e-5) << i;
  }
}

TEST(HiddenRows, HaveTheSameBitsOnAnyNumberOfRanksAndThreadsAndUnderAnyLimit) {
  const SmallModel small({.layers = 3});
  Slot slot = make_slot(small, Slot::State::kMeanOfTokens);
  std::mt19937 random(3);
  for (int prompt = 0; prompt < 40; ++prompt) {
    std::vector<std::int64_t> ids(60);
    for (std::int64_t& id : ids) id = static_cast<std::int64_t>(random() % 300);
    slot.positive_ids[static_cast<std::size_t>(prompt % 4)].push_back(ids);
  }
  std::string core;
  const auto alone = make_single_peer();
  const std::vector<double> expected = hidden_rows(*alone, *small.storage, slot, {}, core);
  ExecuteOptions tight;
  tight.memory_limit_bytes = 46 << 20;
  std::size_t steps = 0;
  tight.on_layer = [&](std::size_t, std::size_t num_steps) { steps = num_steps; };
  EXPECT_EQ(hidden_rows(*alone, *small.storage, slot, tight, core), expected);
  EXPECT_GT(steps, 3U);  // several passes over three layers
  for (const int ranks : {2, 3}) {
    std::mutex mutex;
    run_thread_peers(ranks, [&](Peers& peers) {
      ExecuteOptions options;
      options.threads = ranks - 1;
      std::string own_core;
      const std::vector<double> rows = hidden_rows(peers, *small.storage, slot, options, own_core);
      const std::lock_guard lock(mutex);
      EXPECT_EQ(rows, expected);
    });
  }
}

TEST(HiddenRows, APromptThatOccursTwiceRunsOnce) {
  const SmallModel small({});
  EXPECT_EQ(distinct_prompts(make_slot(small, Slot::State::kLastToken)),
            (std::vector<std::vector<std::int64_t>>{{1, 2, 3}, {7}, {4, 5}, {8, 8, 8, 8}, {9, 10}}));
}

TEST(OrthogonalRows, AreOrthonormalAndUnlikeInEachLayer) {
  Slot slot;
  slot.kind = Slot::Kind::kOrthogonalRouter;
  slot.layers = {1, 3};
  slot.shape = {2 * 24, 24};  // as many rows as there can be
  const std::vector<double> rows = orthogonal_rows(slot, 7, 2);
  for (std::size_t group = 0; group < 2; ++group) {
    for (std::size_t i = 0; i < 24; ++i) {
      for (std::size_t j = 0; j <= i; ++j) {
        double dot = 0;
        for (std::size_t k = 0; k < 24; ++k) dot += rows[(group * 24 + i) * 24 + k] * rows[(group * 24 + j) * 24 + k];
        EXPECT_NEAR(dot, i == j ? 1.0 : 0.0, 1e-14);
      }
    }
  }
  EXPECT_GT(std::abs(rows[0] - rows[24 * 24]), 1e-6);
  EXPECT_EQ(orthogonal_rows(slot, 7, 1), rows);
  EXPECT_NE(orthogonal_rows(slot, 8, 1), rows);
  // A layer's rows do not depend on which other layers are sparse.
  slot.layers = {3};
  slot.shape = {24, 24};
  EXPECT_EQ(orthogonal_rows(slot, 7, 1), std::vector<double>(rows.begin() + 24 * 24, rows.end()));
}

TEST(ConditionNumber, IsTheRatioOfSingularValues) {
  // Rows of lengths 3 and 0.5 at right angles, turned: singular values are the lengths.
  const double c = std::cos(0.4), s = std::sin(0.4);
  const std::vector<double> right = {3 * c, 3 * s, 0, -0.5 * s, 0.5 * c, 0};
  EXPECT_NEAR(condition_number(right, 2), 6.0, 1e-12);
  // Two unit rows at angle a: sqrt((1 + cos a) / (1 - cos a)).
  const std::vector<double> slanted = {1, 0, std::cos(0.3), std::sin(0.3)};
  EXPECT_NEAR(condition_number(slanted, 2), std::sqrt((1 + std::cos(0.3)) / (1 - std::cos(0.3))), 1e-12);
  const std::vector<double> dependent = {1, 2, 3, 2, 4, 6};
  EXPECT_TRUE(std::isinf(condition_number(dependent, 2)));
  EXPECT_TRUE(std::isinf(condition_number(std::vector<double>{1, 2, 3}, 3)));
  EXPECT_EQ(condition_number(std::vector<double>{0.5, 0.5}, 1), 1.0);
}

TEST(ConditionNumber, OfManyRowsAgreesWithKnownSingularValues) {
  // Orthonormal rows scaled by 1, 2, ... n and mixed by a rotation from the left keep those singular values.
  Slot slot;
  slot.layers = {0};
  constexpr std::size_t kCount = 12;
  slot.shape = {kCount, 40};
  std::vector<double> rows = orthogonal_rows(slot, 1, 1);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] *= static_cast<double>(i / 40 + 1);
  slot.shape = {kCount, kCount};
  const std::vector<double> turn = orthogonal_rows(slot, 2, 1);
  std::vector<double> mixed(rows.size());
  for (std::size_t i = 0; i < kCount; ++i) {
    for (std::size_t j = 0; j < kCount; ++j) {
      for (std::size_t k = 0; k < 40; ++k) mixed[i * 40 + k] += turn[i * kCount + j] * rows[j * 40 + k];
    }
  }
  EXPECT_NEAR(condition_number(mixed, kCount), 12.0, 1e-9);
}

TEST(DegenerateLayers, AreNamedAndASharedGateIsNoPartOfARouter) {
  Slot slot;
  slot.layers = {2, 5, 6};
  slot.shape = {3 * 3, 2};
  slot.num_shared = 1;
  const std::vector<double> good = {1, 0, 0, 1, 1, 0};
  const std::vector<double> bad = {1, 0, 1, 0.1, 0, 1};
  std::vector<double> rows = good;
  rows.insert(rows.end(), bad.begin(), bad.end());
  rows.insert(rows.end(), bad.begin(), bad.end());
  EXPECT_NE(degenerate_layers(slot, rows, 2)->find("layers 5, 6 are degenerate"), std::string::npos);
  std::copy(good.begin(), good.end(), rows.begin() + 6);
  EXPECT_NE(degenerate_layers(slot, rows, 1)->find("layer 6 are degenerate"), std::string::npos);
  std::copy(good.begin(), good.end(), rows.begin() + 12);
  EXPECT_EQ(degenerate_layers(slot, rows, 1), std::nullopt);
}

/// A router of random rows in each of `layers`, as the planner writes it, and one row for a gate of shared experts.
plan::MergePlan random_routers(std::uint64_t num_experts, std::uint64_t width, const std::vector<int>& layers, std::uint64_t repeat = 1) {
  plan::MergePlan plan;
  plan.seed = 11;
  for (const int layer : layers) {
    for (const char* which : {"gate", "shared_expert_gate"}) {
      plan::Operation operation;
      operation.kind = plan::Operation::Kind::kRandomFill;
      operation.name = "model.layers." + std::to_string(layer) + ".mlp." + which + ".weight";
      operation.repeat_rows = which == std::string("gate") ? repeat : 1;
      operation.task.shape = {which == std::string("gate") ? num_experts * repeat : 1, width};
      operation.fill.stream = stream_id(operation.name);
      plan.operations.push_back(operation);
    }
  }
  return plan;
}

std::vector<double> rows_of(const plan::MergePlan& plan, const plan::Operation& operation) {
  std::vector<double> rows(operation.task.shape[0] / operation.repeat_rows * operation.task.shape[1]);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = normal({plan.seed, operation.fill.stream}, i);
  return rows;
}

TEST(DegenerateRandomRouters, AreThoseWhoseRowsHaveALargeConditionNumber) {
  // Of eight rows of twelve numbers some are on either side of the border: singular values lie about between sqrt(12) -+ sqrt(8).
  const plan::MergePlan plan = random_routers(8, 12, {0, 1, 2, 3, 4, 5, 6, 7}, 3);
  std::vector<int> expected;
  for (std::size_t i = 0; i < plan.operations.size(); i += 2) {
    if (condition_number(rows_of(plan, plan.operations[i]), 8) > 5) expected.push_back(static_cast<int>(i / 2));
  }
  ASSERT_GT(expected.size(), 1U);
  ASSERT_LT(expected.size(), 8U);
  std::string list;
  for (const int layer : expected) list += (list.empty() ? "" : ", ") + std::to_string(layer);
  for (const int ranks : {1, 3}) {
    run_thread_peers(ranks, [&](Peers& peers) {
      const auto warning = degenerate_random_routers(peers, plan, 2);
      ASSERT_TRUE(warning.has_value());
      EXPECT_NE(warning->find("routers of layers " + list + " are degenerate (condition number above 5)"), std::string::npos) << *warning;
      EXPECT_NE(warning->find("8 experts"), std::string::npos);
    });
  }
}

TEST(DegenerateRandomRouters, NoneWhereRowsAreLongAndAllWhereTheyAreTooMany) {
  const auto alone = make_single_peer();
  EXPECT_EQ(degenerate_random_routers(*alone, random_routers(8, 1500, {0, 1}), 2), std::nullopt);
  EXPECT_NE(degenerate_random_routers(*alone, random_routers(8, 7, {0, 1}), 2)->find("of all layers"), std::string::npos);
  EXPECT_EQ(degenerate_random_routers(*alone, plan::MergePlan(), 2), std::nullopt);
}

}  // namespace
}  // namespace moeweld::exec
