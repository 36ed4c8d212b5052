#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

/// Tensors in each sparse layer: two norms, attention, router and correction, and three matrices of two experts and the shared one.
constexpr std::size_t kTensorsOfSparseLayer = 2 + 4 + 2 + 3 * 3;
/// Those that a layer of multi-token prediction has besides.
constexpr std::size_t kTensorsOfPrediction = 4;

void write_glm(const Workshop& workshop, const std::string& name, int num_mtp_layers) {
  // The first layer is dense, and so are all layers of a TinyModel.
  TinyModel model{.num_layers = 2 + num_mtp_layers, .architecture = "Glm4MoeForCausalLM"};
  model.config = {{"model_type", "glm4_moe"},   {"num_hidden_layers", 2},    {"num_nextn_predict_layers", num_mtp_layers},
                  {"first_k_dense_replace", 1}, {"n_routed_experts", 2},     {"n_shared_experts", 1},
                  {"num_experts_per_tok", 1},   {"moe_intermediate_size", 6}};
  std::vector<formats::TensorLayout> tensors = tensors_of(model);
  std::erase_if(tensors, [](const auto& tensor) {
    return tensor.name.find(".mlp.") != std::string::npos && !tensor.name.starts_with("model.layers.0.");
  });
  const auto add = [&](const std::string& tensor, Shape shape) { tensors.push_back({tensor + ".weight", model.dtype, std::move(shape)}); };
  for (int layer = 1; layer < 2 + num_mtp_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add(prefix + "mlp.gate", {2, 4});
    tensors.insert(tensors.begin(), {prefix + "mlp.gate.e_score_correction_bias", DType::kF32, {2}});
    for (const char* expert : {"experts.0", "experts.1", "shared_experts"}) {
      const std::string own = prefix + "mlp." + expert + ".";
      add(own + "gate_proj", {6, 4});
      add(own + "up_proj", {6, 4});
      add(own + "down_proj", {4, 6});
    }
    if (layer < 2) continue;
    for (const char* norm : {"enorm", "hnorm", "shared_head.norm"}) add(prefix + norm, {4});
    add(prefix + "eh_proj", {4, 8});
  }
  workshop.write(name, tensors, config_of(model));
}

class Mtp : public ::testing::Test {
 protected:
  Mtp() {
    for (const char* name : {"a", "b", "base"}) write_glm(workshop_, name, 1);
    write_glm(workshop_, "without", 0);
    for (const char* name : {"plain", "other"}) workshop_.write(name, {});
  }
  MergePlan plan(const std::string& more, const std::string& first = "a", const std::string& second = "b",
                 const std::string& method = "linear") const {
    return workshop_.plan("merge_method: " + method + "\nmodels:\n  - {model: $/" + first + ", parameters: {weight: 1}}\n  - {model: $/" +
                          second + ", parameters: {weight: 1}}\n" + more);
  }
  static bool has_mtp(const MergePlan& plan) {
    return std::any_of(plan.tensors.begin(), plan.tensors.end(),
                       [](const PlannedTensor& tensor) { return tensor.name.starts_with("model.layers.2."); });
  }
  Workshop workshop_;
};

const std::string kProjection = "model.layers.2.eh_proj.weight";

TEST_F(Mtp, LayersAreMergedUnlessSaidOtherwise) {
  for (const char* more : {"", "mtp: merge\n"}) {
    const MergePlan merged = plan(more);
    const Operation& operation = operation_named(merged, kProjection);
    EXPECT_EQ(operation.kind, Operation::Kind::kMerge);
    EXPECT_EQ(operation.sources.size(), 2U);
    EXPECT_EQ(output_config_of(merged)["num_nextn_predict_layers"], 1);
    EXPECT_THAT(merged.notes, Contains(HasSubstr("mtp: merge: 1 layer")));
  }
}

TEST_F(Mtp, OfTheBaseAreCopied) {
  const MergePlan merged = plan("base_model: $/base\nmtp: base\n", "a", "b", "task_arithmetic");
  for (const char* name : {"eh_proj", "enorm", "self_attn.q_proj", "mlp.experts.1.up_proj"}) {
    const Operation& operation = operation_named(merged, "model.layers.2." + std::string(name) + ".weight");
    EXPECT_EQ(operation.kind, Operation::Kind::kCopy);
    ASSERT_EQ(operation.sources.size(), 1U);
    EXPECT_EQ(source_name(merged, operation.sources[0]), "base:model.layers.2." + std::string(name) + ".weight");
  }
  EXPECT_EQ(operation_named(merged, "model.layers.1.self_attn.q_proj.weight").sources.size(), 3U);
  EXPECT_EQ(output_config_of(merged)["num_nextn_predict_layers"], 1);
  EXPECT_THAT(merged.notes, Contains(HasSubstr("mtp: base: 1 layer")));
  EXPECT_THAT(merged.dropped, Contains(::testing::Field(&DroppedTensor::name, kProjection)).Times(2));
}

TEST_F(Mtp, OfTheFirstModelWhereThereIsNoBase) {
  const MergePlan merged = plan("mtp: base\n", "a", "without");
  EXPECT_EQ(source_name(merged, operation_named(merged, kProjection).sources.at(0)), "a:" + kProjection);
}

TEST_F(Mtp, OfTheBaseAreConvertedToTheOutputsType) {
  const MergePlan merged = plan("mtp: base\ndtype: float32\n");
  const Operation& operation = operation_named(merged, kProjection);
  EXPECT_EQ(operation.kind, Operation::Kind::kMerge);
  EXPECT_EQ(merge::method_table()[operation.method].name, "passthrough");
  EXPECT_EQ(operation.task.output_dtype, DType::kF32);
}

TEST_F(Mtp, DroppedOnesAreListedAndNotCountedByTheConfig) {
  const MergePlan merged = plan("mtp: drop\n");
  EXPECT_FALSE(has_mtp(merged));
  EXPECT_EQ(output_config_of(merged)["num_nextn_predict_layers"], 0);
  EXPECT_EQ(merged.dropped.size(), 2 * (kTensorsOfSparseLayer + kTensorsOfPrediction));
  for (const DroppedTensor& tensor : merged.dropped) EXPECT_EQ(tensor.reason, "mtp: drop");
  EXPECT_THAT(merged.notes, Contains(HasSubstr("no layers of multi-token prediction")));
}

TEST_F(Mtp, ModelsWithAndWithoutCanBeMergedOnlyWithoutThem) {
  expect_error([&] { plan("", "a", "without"); }, ErrorCode::kInvalidInput, {"model.layers.2."});
  expect_error([&] { plan("", "without", "a"); }, ErrorCode::kInvalidInput, {"model.layers.2.", "'mtp: drop'"});
  EXPECT_FALSE(has_mtp(plan("mtp: drop\n", "a", "without")));
  EXPECT_FALSE(has_mtp(plan("mtp: base\n", "without", "a")));
}

TEST_F(Mtp, SlicesHaveNone) {
  const MergePlan merged = workshop_.plan(
      "merge_method: passthrough\nslices:\n  - sources: [{model: $/a, layer_range: [0, 2]}]\n  - sources: [{model: $/b, layer_range: [1, "
      "2]}]\n");
  EXPECT_FALSE(std::any_of(merged.tensors.begin(), merged.tensors.end(),
                           [](const PlannedTensor& tensor) { return tensor.name.ends_with("eh_proj.weight"); }));
  EXPECT_EQ(output_config_of(merged)["num_nextn_predict_layers"], 0);
}

TEST_F(Mtp, OtherWordsAndOtherModels) {
  expect_error([&] { plan("mtp: keep\n"); }, ErrorCode::kInvalidConfig, {"keep", "merge, base or drop", "merge.yml:5"});
  EXPECT_THAT(plan("mtp: drop\n", "plain", "other").notes, Contains(HasSubstr("mtp has no effect")));
}

}  // namespace
}  // namespace moeweld::plan
