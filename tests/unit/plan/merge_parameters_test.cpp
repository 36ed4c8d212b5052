#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

const char* const kEmbedding = "model.embed_tokens.weight";
const char* const kNormTensor = "model.norm.weight";

std::string query(int layer) { return "model.layers." + std::to_string(layer) + ".self_attn.q_proj.weight"; }
std::string up(int layer) { return "model.layers." + std::to_string(layer) + ".mlp.up_proj.weight"; }

class MergeParameters : public ::testing::Test {
 protected:
  MergeParameters() {
    for (const char* name : {"a", "b"}) workshop_.write(name, {.num_layers = 5});
  }
  MergePlan slerp(const std::string& parameters) const {
    return workshop_.plan("models: [{model: $/a}, {model: $/b}]\nbase_model: $/a\nmerge_method: slerp\nparameters:\n" + parameters);
  }
  static std::vector<double> t_of_layers(const MergePlan& plan) {
    std::vector<double> result;
    for (int layer = 0; has_operation(plan, query(layer)); ++layer) result.push_back(shared_parameter(plan, query(layer), "t"));
    return result;
  }

  Workshop workshop_;
};

TEST_F(MergeParameters, AScalarIsTheSameEverywhere) {
  const MergePlan plan = slerp("  t: 0.3\n");
  EXPECT_EQ(t_of_layers(plan), (std::vector<double>{0.3, 0.3, 0.3, 0.3, 0.3}));
  EXPECT_EQ(shared_parameter(plan, kEmbedding, "t"), 0.3);
}

// Layer i of n stands at i / (n - 1); what belongs to no layer at 0.
TEST_F(MergeParameters, AGradientIsInterpolatedOverTheLayers) {
  const MergePlan plan = slerp("  t: [0.5, 1, 0]\n");
  EXPECT_EQ(t_of_layers(plan), (std::vector<double>{0.5, 0.75, 1, 0.5, 0}));
  EXPECT_EQ(shared_parameter(plan, kEmbedding, "t"), 0.5);
  EXPECT_EQ(shared_parameter(plan, kNormTensor, "t"), 0.5);
}

TEST_F(MergeParameters, AGradientRunsOverEachSlice) {
  const MergePlan plan = workshop_.plan(
      "slices:\n"
      "  - sources: [{model: $/a, layer_range: [0, 3]}, {model: $/b, layer_range: [0, 3]}]\n"
      "  - sources: [{model: $/a, layer_range: [3, 4]}, {model: $/b, layer_range: [3, 4]}]\n"
      "base_model: $/a\nmerge_method: slerp\nparameters: {t: [0, 1]}\n");
  EXPECT_EQ(t_of_layers(plan), (std::vector<double>{0, 0.5, 1, 1}));  // one layer stands at 1
}

TEST_F(MergeParameters, TheFirstFilterInTheNameDecides) {
  const MergePlan plan = slerp(
      "  t:\n"
      "    - {filter: self_attn, value: [0, 1]}\n"
      "    - {filter: mlp, value: 0.125}\n"
      "    - {value: 0.75}\n");
  EXPECT_EQ(t_of_layers(plan), (std::vector<double>{0, 0.25, 0.5, 0.75, 1}));
  EXPECT_EQ(shared_parameter(plan, up(4), "t"), 0.125);
  EXPECT_EQ(shared_parameter(plan, kNormTensor, "t"), 0.75);
}

TEST_F(MergeParameters, TheModelsOwnValueWinsAndFiltersFallThrough) {
  const MergePlan plan = workshop_.plan(
      "models:\n"
      "  - {model: $/a, parameters: {weight: 3}}\n"
      "  - {model: $/b, parameters: {weight: [{filter: mlp, value: 7}]}}\n"
      "merge_method: linear\nparameters: {weight: 5, normalize: false}\n");
  EXPECT_EQ(model_parameter(plan, query(0), 0, "weight"), 3);
  EXPECT_EQ(model_parameter(plan, query(0), 1, "weight"), 5);
  EXPECT_EQ(model_parameter(plan, up(0), 1, "weight"), 7);
  EXPECT_EQ(shared_parameter(plan, up(0), "normalize"), 0);
}

TEST_F(MergeParameters, TheSlicesValueWinsOverTheConfigurations) {
  const MergePlan plan = workshop_.plan(
      "slices:\n"
      "  - sources: [{model: $/a, layer_range: [0, 1]}, {model: $/b, layer_range: [0, 1]}]\n"
      "    parameters: {t: 0.25}\n"
      "  - sources: [{model: $/a, layer_range: [1, 2]}, {model: $/b, layer_range: [1, 2]}]\n"
      "base_model: $/a\nmerge_method: slerp\nparameters: {t: 0.5}\n");
  EXPECT_EQ(t_of_layers(plan), (std::vector<double>{0.25, 0.5}));
}

TEST_F(MergeParameters, DefaultsHoldWhereNothingIsGiven) {
  const MergePlan plan =
      workshop_.plan("models: [{model: $/b}]\nbase_model: $/a\nmerge_method: task_arithmetic\nparameters: {weight: 2}\n");
  EXPECT_EQ(shared_parameter(plan, query(0), "normalize"), 0);
  EXPECT_EQ(shared_parameter(plan, query(0), "lambda"), 1);
}

TEST_F(MergeParameters, ABooleanListIsAChoiceOfEntries) {
  const MergePlan plan = workshop_.plan(
      "models: [{model: $/a}, {model: $/b}]\nmerge_method: linear\nparameters: {weight: 1, normalize: [true, false, true]}\n");
  std::vector<double> normalize;  // entry int(2 t) for t = 0, 0.25, 0.5, 0.75, 1
  for (int layer = 0; layer < 5; ++layer) normalize.push_back(shared_parameter(plan, query(layer), "normalize"));
  EXPECT_EQ(normalize, (std::vector<double>{1, 1, 0, 0, 1}));
}

// Of models on the input's name, shared on the output's.
TEST_F(MergeParameters, FiltersOfModelsSeeTheInputsNames) {
  const MergePlan plan = workshop_.plan(
      "slices:\n"
      "  - sources: [{model: $/a, layer_range: [3, 5], parameters: {weight: [{filter: layers.4., value: 9}, {value: 1}]}},"
      " {model: $/b, layer_range: [0, 2], parameters: {weight: [{filter: layers.0., value: 8}, {value: 2}]}}]\n"
      "merge_method: linear\nparameters: {normalize: [{filter: layers.1., value: false}]}\n");
  EXPECT_EQ(model_parameter(plan, query(0), 0, "weight"), 1);
  EXPECT_EQ(model_parameter(plan, query(0), 1, "weight"), 8);
  EXPECT_EQ(model_parameter(plan, query(1), 0, "weight"), 9);
  EXPECT_EQ(model_parameter(plan, query(1), 1, "weight"), 2);
  EXPECT_EQ(shared_parameter(plan, query(0), "normalize"), 1);
  EXPECT_EQ(shared_parameter(plan, query(1), "normalize"), 0);
}

TEST_F(MergeParameters, RefusesAWordForANumber) {
  expect_error([&] { slerp("  t: much\n"); }, ErrorCode::kInvalidConfig, {"merge.yml:5", "'t'", "'much'"});
}

TEST_F(MergeParameters, SaysWhichParameterHasNoEffect) {
  const MergePlan plan = workshop_.plan(
      "models: [{model: $/b}]\nbase_model: $/a\nmerge_method: ties\nparameters: {weight: 1, density: 0.5, int8_mask: true}\n");
  EXPECT_THAT(plan.notes, Contains(HasSubstr("'int8_mask'")));
}

}  // namespace
}  // namespace moeweld::plan
