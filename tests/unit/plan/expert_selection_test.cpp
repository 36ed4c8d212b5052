#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "moeweld/plan/reduction.h"
#include "unit/expect_error.h"

namespace moeweld::plan {
namespace {

using ::testing::ElementsAre;

MixtureSurvey survey_of(std::uint32_t num_experts, std::vector<int> layers, std::uint32_t num_groups = 1) {
  MixtureSurvey survey;
  survey.model = "mixture";
  survey.num_experts = num_experts;
  survey.num_groups = num_groups;
  for (const int layer : layers) survey.layers.push_back({.layer = layer, .router_name = {}, .router = {}, .experts = {}});
  return survey;
}

std::vector<std::vector<std::uint32_t>> experts_of(const std::vector<ExpertGroup>& groups) {
  std::vector<std::vector<std::uint32_t>> result;
  for (const ExpertGroup& group : groups) result.push_back(group.experts);
  return result;
}

using Experts = std::vector<std::vector<std::uint32_t>>;

TEST(Prune, KeepsTheHighestScoresInTheirOrderLayerByLayer) {
  const Reduction reduction = prune(survey_of(4, {1, 3}), {{1, {0.5, 3, -2, 1}}, {3, {9, 1, 8, 7}}}, 2);
  ASSERT_EQ(reduction.size(), 2U);
  EXPECT_EQ(experts_of(reduction.at(1)), (Experts{{1}, {3}}));
  EXPECT_EQ(experts_of(reduction.at(3)), (Experts{{0}, {2}}));
  EXPECT_THAT(reduction.at(1)[0].weights, ElementsAre(1.0));
}

TEST(Prune, OfEqualScoresTheFirstStay) {
  EXPECT_EQ(experts_of(prune(survey_of(5, {0}), {{0, {1, 2, 1, 1, 2}}}, 3).at(0)), (Experts{{0}, {1}, {4}}));
}

TEST(Prune, EveryRoutingGroupKeepsAsMany) {
  // All of the second group score higher than all of the first.
  EXPECT_EQ(experts_of(prune(survey_of(6, {0}, 2), {{0, {1, 3, 2, 10, 30, 20}}}, 4).at(0)), (Experts{{1}, {2}, {4}, {5}}));
}

TEST(Prune, AllExpertsStayWhereAllAreWanted) {
  EXPECT_EQ(experts_of(prune(survey_of(3, {0}), {{0, {3, 1, 2}}}, 3).at(0)), (Experts{{0}, {1}, {2}}));
}

TEST(Scores, AreReadByLayer) {
  const ExpertScores scores = parse_scores(R"({"2": [1, -0.5], "0": [0, 1e3]})", "scores.json", survey_of(2, {0, 2}), false);
  EXPECT_EQ(scores, (ExpertScores{{0, {0, 1000}}, {2, {1, -0.5}}}));
}

TEST(Scores, EverythingWrongIsSaidAtOnce) {
  expect_error(
      [] {
        parse_scores(R"({"0": [1], "1": [1, "high"], "7": [1, 2]})", "scores.json", survey_of(2, {0, 1, 4}), false);
      },
      ErrorCode::kInvalidInput,
      {"scores.json", "layer 0 has 1 scores, and 'mixture' has 2 experts", "layer 1: '\"high\"' is no number", "layer 4", "'7'"});
}

/// Symmetric, 1 on the diagonal: similarity[i][j] for i < j, row by row.
std::vector<double> symmetric(std::size_t n, const std::vector<double>& upper) {
  std::vector<double> result(n * n, 1.0);
  std::size_t next = 0;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = i + 1; j < n; ++j) result[i * n + j] = result[j * n + i] = upper.at(next++);
  }
  return result;
}

TEST(Cluster, TheMostAlikeBecomeOneUntilEnoughAreLeft) {
  // 0-3 are most alike, then 1-2.
  const std::vector<double> similarity = symmetric(4, {0.1, 0.2, 0.9, 0.8, 0.3, 0.1});
  EXPECT_EQ(experts_of(cluster(survey_of(4, {0}), {{0, similarity}}, {}, 4).at(0)), (Experts{{0}, {1}, {2}, {3}}));
  EXPECT_EQ(experts_of(cluster(survey_of(4, {0}), {{0, similarity}}, {}, 3).at(0)), (Experts{{0, 3}, {1}, {2}}));
  EXPECT_EQ(experts_of(cluster(survey_of(4, {0}), {{0, similarity}}, {}, 2).at(0)), (Experts{{0, 3}, {1, 2}}));
  EXPECT_EQ(experts_of(cluster(survey_of(4, {0}), {{0, similarity}}, {}, 1).at(0)), (Experts{{0, 1, 2, 3}}));
}

TEST(Cluster, ClustersAreComparedByTheMeanOverTheirPairs) {
  // {0, 1} and 2: (0.6 + 0.1) / 2 = 0.35; 2 and 3: 0.4. Their nearest pair would decide otherwise.
  const std::vector<double> similarity = symmetric(4, {0.9, 0.6, 0.0, 0.1, 0.0, 0.4});
  EXPECT_EQ(experts_of(cluster(survey_of(4, {0}), {{0, similarity}}, {}, 2).at(0)), (Experts{{0, 1}, {2, 3}}));
  // {0, 1, 2} and 3: (0.5 + 0.5 + 0.1) / 3 = 0.367; 3 and 4: 0.36. The mean of two clusters' means, 0.3, would decide otherwise.
  const std::vector<double> grown = symmetric(5, {0.9, 0.8, 0.5, 0.0, 0.8, 0.5, 0.0, 0.1, 0.0, 0.36});
  EXPECT_EQ(experts_of(cluster(survey_of(5, {0}), {{0, grown}}, {}, 2).at(0)), (Experts{{0, 1, 2, 3}, {4}}));
}

TEST(Cluster, StaysWithinRoutingGroups) {
  const std::vector<double> similarity = symmetric(4, {0.0, 0.9, 0.1, 0.1, 0.9, 0.0});
  EXPECT_EQ(experts_of(cluster(survey_of(4, {0}, 2), {{0, similarity}}, {}, 2).at(0)), (Experts{{0, 1}, {2, 3}}));
}

TEST(Cluster, ScoresWeighTheMembers) {
  const ExpertSimilarities similarity = {{0, symmetric(3, {0.0, 0.9, 0.1})}};
  EXPECT_THAT(cluster(survey_of(3, {0}), similarity, {{0, {1, 5, 3}}}, 2).at(0)[0].weights, ElementsAre(0.25, 0.75));
  EXPECT_THAT(cluster(survey_of(3, {0}), similarity, {}, 2).at(0)[0].weights, ElementsAre(0.5, 0.5));
  EXPECT_THAT(cluster(survey_of(3, {0}), similarity, {{0, {0, 5, 0}}}, 2).at(0)[0].weights, ElementsAre(0.5, 0.5));
}

TEST(Scores, ThatAreWeightsAreNotNegative) {
  expect_error([] { parse_scores(R"({"0": [1, -2]})", "scores.json", survey_of(2, {0}), true); }, ErrorCode::kInvalidInput,
               {"layer 0: -2"});
}

TEST(Scores, MustBeAnObject) {
  expect_error([] { parse_scores("[[1, 2]]", "scores.json", survey_of(2, {0}), false); }, ErrorCode::kInvalidInput,
               {"scores.json", "JSON object"});
}

}  // namespace
}  // namespace moeweld::plan
