#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "moeweld/plan/reduction.h"
#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ReductionPlanner : public ::testing::Test {
 protected:
  ReductionPlanner() { workshop_.write("mixture", {.num_experts = 4}); }

  ReductionRequest request(std::uint32_t num_experts, const std::string& name = "mixture") const {
    ReductionRequest result;
    result.model.path = workshop_.path(name);
    result.num_experts = num_experts;
    return result;
  }
  MixtureSurvey survey(const ReductionRequest& request) const {
    ModelSource models(*storage_, {});
    return survey_mixture(request, models);
  }
  MergePlan reduced(const ReductionRequest& request, const Reduction& reduction, const PlanOptions& options = {}) const {
    ModelSource models(*storage_, {});
    return make_reduction_plan(request, reduction, models, options);
  }

  Workshop workshop_;
  std::shared_ptr<Storage> storage_ = make_posix_storage();
};

std::string expert(int layer, int index, const std::string& matrix) {
  return "model.layers." + std::to_string(layer) + ".block_sparse_moe.experts." + std::to_string(index) + "." + matrix + ".weight";
}

/// Every expert of a reduction alone.
std::vector<ExpertGroup> alone(const std::vector<std::uint32_t>& experts) {
  std::vector<ExpertGroup> result;
  for (const std::uint32_t expert : experts) result.push_back({.experts = {expert}, .weights = {1.0}});
  return result;
}

TEST_F(ReductionPlanner, ExpertsAndTheirRouterRowsMoveTogether) {
  const MergePlan plan = reduced(request(2), {{0, alone({1, 3})}, {1, alone({0, 1})}});
  for (const char* matrix : {"w1", "w2", "w3"}) {
    EXPECT_THAT(source_names(plan, expert(0, 0, matrix)), ElementsAre("mixture:" + expert(0, 1, matrix)));
    EXPECT_THAT(source_names(plan, expert(0, 1, matrix)), ElementsAre("mixture:" + expert(0, 3, matrix)));
    EXPECT_THAT(source_names(plan, expert(1, 1, matrix)), ElementsAre("mixture:" + expert(1, 1, matrix)));
  }
  EXPECT_FALSE(has_operation(plan, expert(0, 2, "w1")));
  // Rows 1 and 3 of a router of 4 rows of 4 numbers of 2 bytes each.
  std::vector<std::uint64_t> begins;
  for (const Operation& operation : plan.operations) {
    if (operation.name != "model.layers.0.block_sparse_moe.gate.weight") continue;
    EXPECT_EQ(operation.kind, Operation::Kind::kCopy);
    EXPECT_EQ(operation.task.shape, (Shape{1, 4}));
    begins.push_back(operation.sources.at(0).begin);
  }
  const MergePlan whole = reduced(request(4), {{0, alone({0, 1, 2, 3})}, {1, alone({0, 1, 2, 3})}});
  const std::uint64_t router = operation_named(whole, "model.layers.0.block_sparse_moe.gate.weight").sources.at(0).begin;
  EXPECT_THAT(begins, ElementsAre(router + 8, router + 24));
  EXPECT_EQ(tensor_named(plan, "model.layers.0.block_sparse_moe.gate.weight").shape, (Shape{2, 4}));
  EXPECT_EQ(output_config_of(plan)["num_local_experts"], 2);
}

TEST_F(ReductionPlanner, WithAllExpertsKeptEveryTensorIsACopyOfItself) {
  const MergePlan plan = reduced(request(4), {{0, alone({0, 1, 2, 3})}, {1, alone({0, 1, 2, 3})}});
  EXPECT_EQ(plan.tensors.size(), tensors_of({.num_experts = 4}).size());
  for (const Operation& operation : plan.operations) {
    EXPECT_EQ(operation.kind, Operation::Kind::kCopy);
    EXPECT_THAT(source_names(plan, operation.name), ElementsAre("mixture:" + operation.name));
  }
  EXPECT_TRUE(plan.dropped.empty());
}

TEST_F(ReductionPlanner, AClusterIsTheWeightedMeanOfItsExpertsAndTheirRows) {
  const std::vector<ExpertGroup> groups = {{.experts = {0, 2}, .weights = {0.25, 0.75}}, {.experts = {1}, .weights = {1.0}}};
  const MergePlan plan = reduced(request(2), {{0, groups}, {1, groups}});
  EXPECT_THAT(source_names(plan, expert(1, 0, "w2")), ElementsAre("mixture:" + expert(1, 0, "w2"), "mixture:" + expert(1, 2, "w2")));
  EXPECT_EQ(model_parameter(plan, expert(1, 0, "w2"), 0, "weight"), 0.25);
  EXPECT_EQ(model_parameter(plan, expert(1, 0, "w2"), 1, "weight"), 0.75);
  const Operation& row = operation_named(plan, "model.layers.0.block_sparse_moe.gate.weight");
  EXPECT_EQ(merge::method_table()[row.method].name, "linear");
  EXPECT_EQ(row.sources.at(1).begin - row.sources.at(0).begin, 2 * 4 * 2U);
  EXPECT_EQ(model_parameter(plan, row.name, 1, "weight"), 0.75);
}

TEST_F(ReductionPlanner, SaysWhatStaysAndWhatGoes) {
  const std::vector<ExpertGroup> groups = {{.experts = {0, 2}, .weights = {0.25, 0.75}}, {.experts = {1}, .weights = {1.0}}};
  const MergePlan plan = reduced(request(2), {{0, groups}, {1, alone({1, 2})}});
  EXPECT_THAT(plan.composition, Contains("layer 0: experts 1 kept; merged 0 (0.25) + 2 (0.75); 3 dropped"));
  EXPECT_THAT(plan.composition, Contains("layer 1: experts 1, 2 kept; 0, 3 dropped"));
  EXPECT_EQ(plan.dropped.size(), 3U * 3U);
}

TEST_F(ReductionPlanner, TheFusedLayoutHoldsTheSameExperts) {
  PlanOptions options;
  options.layout = config::Layout::kFused;
  const MergePlan plan = reduced(request(2), {{0, alone({1, 3})}, {1, alone({0, 1})}}, options);
  EXPECT_EQ(tensor_named(plan, "model.layers.0.mlp.experts.gate_up_proj").shape, (Shape{2, 12, 4}));
  EXPECT_EQ(tensor_named(plan, "model.layers.0.mlp.gate.weight").shape, (Shape{2, 4}));
  EXPECT_THAT(source_names(plan, expert(0, 1, "w3")), ElementsAre("mixture:" + expert(0, 3, "w3")));
}

TEST_F(ReductionPlanner, ExpertsPerTokenCanBeChanged) {
  ReductionRequest wanted = request(2);
  EXPECT_EQ(output_config_of(reduced(wanted, {{0, alone({0, 1})}, {1, alone({0, 1})}}))["num_experts_per_tok"], 1);
  wanted.experts_per_token = 2;
  EXPECT_EQ(output_config_of(reduced(wanted, {{0, alone({0, 1})}, {1, alone({0, 1})}}))["num_experts_per_tok"], 2);
}

TEST_F(ReductionPlanner, ASurveyComesBackFromItsBytes) {
  const MixtureSurvey found = decode_survey(encode_survey(survey(request(2))));
  ASSERT_EQ(found.layers.size(), 2U);
  EXPECT_EQ(found.num_experts, 4U);
  EXPECT_EQ(found.layers[1].layer, 1);
  EXPECT_EQ(found.layers[1].experts.size(), 12U);
  EXPECT_EQ(found.input_files.size(), 1U);
}

TEST_F(ReductionPlanner, RefusesWhatCannotBeRouted) {
  expect_error([&] { survey(request(5)); }, ErrorCode::kUsage, {"--experts 5", "has only 4 experts"});
  ReductionRequest wanted = request(2);
  wanted.experts_per_token = 3;
  expect_error([&] { survey(wanted); }, ErrorCode::kUsage, {"takes 3 experts", "only 2"});
  workshop_.write("dense", {});
  expect_error([&] { survey(request(2, "dense")); }, ErrorCode::kUnsupported, {"LlamaForCausalLM", "only a mixture"});
}

}  // namespace
}  // namespace moeweld::plan
