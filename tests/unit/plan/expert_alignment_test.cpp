#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "moeweld/plan/alignment.h"
#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using ::testing::ElementsAre;
using Kind = SourceView::Kind;

class ExpertAlignment : public ::testing::Test {
 protected:
  ExpertAlignment() {
    for (const char* name : {"a", "b", "c"}) workshop_.write(name, {.num_experts = 3});
  }

  std::string merge_of(std::initializer_list<std::string> models, const std::string& more) const {
    std::string text = "merge_method: linear\nmodels:\n";
    for (const std::string& model : models) text += "  - {model: $/" + model + ", parameters: {weight: 1}}\n";
    return text + more;
  }

  static std::string expert(int layer, int index, const char* matrix) {
    return "model.layers." + std::to_string(layer) + ".block_sparse_moe.experts." + std::to_string(index) + "." + matrix + ".weight";
  }
  static std::string router(int layer) { return "model.layers." + std::to_string(layer) + ".block_sparse_moe.gate.weight"; }

  Workshop workshop_;
};

TEST_F(ExpertAlignment, OpensOneForEachLayerAndLeavesTheReferenceAlone) {
  const MergePlan plan = workshop_.plan(merge_of({"a", "b", "c"}, "base_model: $/b\nalign_experts: true\n"));
  ASSERT_EQ(plan.alignments.size(), 2U);
  const Alignment& alignment = plan.alignments[1];
  EXPECT_EQ(alignment.layer, 1);
  EXPECT_EQ(alignment.num_experts, 3U);
  EXPECT_EQ(alignment.num_groups, 1U);
  EXPECT_EQ(alignment.num_neurons, 6U);
  EXPECT_EQ(alignment.hidden, 4U);
  EXPECT_EQ(alignment.reference, 1U);
  EXPECT_THAT(alignment.models, ElementsAre(0, 2));
  EXPECT_EQ(plan.operations.at(alignment.router).name, router(1));
  EXPECT_EQ(alignment.correction_bias, kNoOperation);
  EXPECT_EQ(plan.operations.at(alignment.down[2]).name, expert(1, 2, "w2"));
  EXPECT_EQ(plan.num_orders, 2U * 2 * (3 + 3 * 6));
  EXPECT_TRUE(plan.orders.empty());
  const Operation& gate = operation_named(plan, expert(1, 2, "w1"));
  EXPECT_EQ(gate.sources[0].kind, Kind::kPermutedRows);
  EXPECT_EQ(gate.sources[1].kind, Kind::kBytes);
  EXPECT_EQ(gate.sources[2].kind, Kind::kPermutedRows);
  EXPECT_EQ(gate.sources[2].first, alignment.neuron_order(1, 2));
  EXPECT_EQ(operation_named(plan, expert(0, 0, "w2")).sources[0].kind, Kind::kPermutedColumns);
  EXPECT_EQ(operation_named(plan, router(0)).sources[0].kind, Kind::kPermutedRows);
  EXPECT_EQ(operation_named(plan, "model.layers.0.self_attn.q_proj.weight").sources[0].kind, Kind::kBytes);
}

TEST_F(ExpertAlignment, IsOffUnlessAskedFor) {
  EXPECT_TRUE(workshop_.plan(merge_of({"a", "b"}, "")).alignments.empty());
  EXPECT_TRUE(workshop_.plan(merge_of({"a", "b"}, "align_experts: false\n")).alignments.empty());
}

TEST_F(ExpertAlignment, OrdersDecideWhichExpertIsRead) {
  const MergePlan plan = workshop_.plan(merge_of({"a", "b"}, "align_experts: {match: router, neurons: false}\n"));
  ASSERT_EQ(plan.num_orders, 2U * 3);
  EXPECT_EQ(plan.alignments[0].match, config::AlignExperts::Match::kRouter);
  const MergePlan ordered = with_orders(plan, {2, 0, 1, 0, 1, 2});
  EXPECT_THAT(source_names(ordered, expert(0, 0, "w1")), ElementsAre("a:" + expert(0, 0, "w1"), "b:" + expert(0, 2, "w1")));
  EXPECT_THAT(source_names(ordered, expert(0, 1, "w2")), ElementsAre("a:" + expert(0, 1, "w2"), "b:" + expert(0, 0, "w2")));
  EXPECT_THAT(source_names(ordered, expert(0, 2, "w3")), ElementsAre("a:" + expert(0, 2, "w3"), "b:" + expert(0, 1, "w3")));
  EXPECT_THAT(source_names(ordered, expert(1, 1, "w1")), ElementsAre("a:" + expert(1, 1, "w1"), "b:" + expert(1, 1, "w1")));
  EXPECT_THAT(ordered.orders, ElementsAre(2, 0, 1, 0, 1, 2));
  EXPECT_THAT(source_names(plan, expert(0, 0, "w1")), ElementsAre("a:" + expert(0, 0, "w1"), "b:" + expert(0, 0, "w1")));
  EXPECT_EQ(ordered.input_bytes(), plan.input_bytes());
}

TEST_F(ExpertAlignment, NeuronsStayWithTheOutputsExpert) {
  const MergePlan plan = workshop_.plan(merge_of({"a", "b"}, "align_experts: true\n"));
  std::vector<std::uint32_t> orders;
  for (int layer = 0; layer < 2; ++layer) {
    orders.insert(orders.end(), {1, 2, 0});
    orders.insert(orders.end(), {1, 0, 2, 3, 4, 5});
    for (int expert = 1; expert < 3; ++expert) orders.insert(orders.end(), {0, 1, 2, 3, 4, 5});
  }
  const MergePlan ordered = with_orders(plan, orders);
  const SourceView& view = operation_named(ordered, expert(0, 0, "w2")).sources[1];
  EXPECT_EQ(view.kind, Kind::kPermutedColumns);
  EXPECT_EQ(view.first, plan.alignments[0].neuron_order(0, 0));
  EXPECT_EQ(source_name(ordered, view.children.at(0)), "b:" + expert(0, 1, "w2"));
  // Neurons that keep their places are read as they are.
  EXPECT_EQ(source_name(ordered, operation_named(ordered, expert(0, 1, "w2")).sources[1]), "b:" + expert(0, 2, "w2"));
}

TEST_F(ExpertAlignment, RefusesOrdersThatAreNoPermutation) {
  const MergePlan plan = workshop_.plan(merge_of({"a", "b"}, "align_experts: {neurons: false}\n"));
  expect_error([&] { with_orders(plan, {0, 1, 1, 0, 1, 2}); }, ErrorCode::kInternal, {"permutation"});
  expect_error([&] { with_orders(plan, {0, 1, 3, 0, 1, 2}); }, ErrorCode::kInternal, {"permutation"});
  expect_error([&] { with_orders(plan, {0, 1, 2}); }, ErrorCode::kInternal, {"other orders"});
}

TEST_F(ExpertAlignment, SurvivesTheBroadcast) {
  const MergePlan plan = decode(encode(workshop_.plan(merge_of({"a", "b"}, "align_experts: {match: weights}\n"))));
  ASSERT_EQ(plan.alignments.size(), 2U);
  EXPECT_EQ(plan.alignments[0].match, config::AlignExperts::Match::kWeights);
  EXPECT_EQ(plan.alignments[1].gate.size(), 3U);
  EXPECT_EQ(plan.num_orders, 2U * (3 + 3 * 6));
}

TEST_F(ExpertAlignment, RefusesDenseModels) {
  workshop_.write("dense", {});
  workshop_.write("other", {});
  expect_error(
      [&] {
        workshop_.plan(merge_of({"dense", "other"}, "align_experts: true\n"));
      },
      ErrorCode::kInvalidConfig, {"align_experts", "have none"});
}

TEST_F(ExpertAlignment, RefusesExpertsOfSeveralTypes) {
  workshop_.write("mixed", {.num_experts = 3, .dtypes = {{expert(0, 1, "w1"), DType::kF32}}});
  expect_error(
      [&] {
        workshop_.plan(merge_of({"a", "mixed"}, "align_experts: true\n"));
      },
      ErrorCode::kUnsupported, {expert(0, 1, "w1"), "one type", "F32"});
}

TEST_F(ExpertAlignment, NotesThatOneModelAloneHasNothingToAlign) {
  const MergePlan plan = workshop_.plan(merge_of({"a"}, "align_experts: true\n"));
  EXPECT_TRUE(plan.alignments.empty());
  EXPECT_THAT(plan.notes, testing::Contains(testing::HasSubstr("align_experts has no effect")));
}

}  // namespace
}  // namespace moeweld::plan
