/// Block-scaled FP8 as inputs and outputs of merges.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using testing::Contains;
using testing::HasSubstr;

const std::string kGate = "model.layers.0.mlp.gate_proj.weight";
const std::string kDown = "model.layers.0.mlp.down_proj.weight";

/// A Llama whose layer 0 has a quantised gate [130, 5], of odd size, and down [5, 130].
class BlockScaledPlans : public testing::Test {
 protected:
  BlockScaledPlans() {
    TinyModel model{.num_layers = 1, .hidden = 5, .ffn = 130};
    model.config = {{"num_attention_heads", 1}, {"num_key_value_heads", 1}};
    workshop_.write("plain", model);
    model.dtypes = {{kGate, DType::kF8E4M3}, {kDown, DType::kF8E4M3}};
    model.extra = {{kGate + "_scale_inv", DType::kF32, {2, 1}}, {kDown + "_scale_inv", DType::kF32, {1, 2}}};
    workshop_.write("unannounced", model);
    model.config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
    workshop_.write("fp8", model);
  }

  static formats::Json config_of(const MergePlan& plan) {
    for (const AuxiliaryFile& file : plan.auxiliary_files) {
      if (file.name == "config.json") return formats::Json::parse(file.content);
    }
    throw std::runtime_error("no config.json");
  }

  Workshop workshop_;
  const std::string both_ = "models: [{model: $/plain}, {model: $/fp8}]\nmerge_method: linear\nparameters: {weight: 1}\n";
  const std::string passed_on_ = "models: [{model: $/fp8}]\nmerge_method: passthrough\n";
};

TEST_F(BlockScaledPlans, AreReadAsScaledViewsAndWrittenAsBf16) {
  const MergePlan plan = workshop_.plan(both_);
  const Operation& gate = operation_named(plan, kGate);
  ASSERT_EQ(gate.sources.size(), 2U);
  EXPECT_EQ(gate.sources[0].kind, SourceView::Kind::kBytes);
  EXPECT_EQ(gate.sources[1].kind, SourceView::Kind::kBlockScaled);
  EXPECT_EQ(gate.task.inputs[1].dtype, DType::kF32);
  EXPECT_EQ(tensor_named(plan, kGate).dtype, DType::kBF16);
  EXPECT_FALSE(has_operation(plan, kGate + "_scale_inv"));
  EXPECT_FALSE(config_of(plan).contains("quantization_config"));
  EXPECT_EQ(operation_named(workshop_.plan(both_ + "out_dtype: float32\n"), kDown).task.output_dtype, DType::kF32);
  // The plan travels.
  EXPECT_EQ(operation_named(decode(encode(plan)), kGate).sources[1].children.size(), 2U);
}

TEST_F(BlockScaledPlans, ThatConfigJsonDoesNotAnnounceAreNoted) {
  EXPECT_THAT(workshop_.plan("models: [{model: $/unannounced}]\nmerge_method: passthrough\n").notes,
              Contains(HasSubstr("no quantization_config")));
}

TEST_F(BlockScaledPlans, AreWrittenWithScalesRightAfterTheirCodes) {
  const MergePlan plan = workshop_.plan(both_ + "out_dtype: fp8_block\n");
  const PlannedTensor& down = tensor_named(plan, kDown);
  const PlannedTensor& scales = tensor_named(plan, kDown + "_scale_inv");
  EXPECT_EQ(down.dtype, DType::kF8E4M3);
  EXPECT_EQ(scales.dtype, DType::kF32);
  EXPECT_EQ(scales.shape, (Shape{1, 2}));
  const Operation& codes = operation_named(plan, kDown);
  EXPECT_TRUE(codes.block_scaled);
  EXPECT_EQ(codes.task.output_dtype, DType::kF32);
  EXPECT_EQ(codes.result_bytes(), 650U);
  const Operation& own = operation_named(plan, kDown + "_scale_inv");
  EXPECT_EQ(own.kind, Operation::Kind::kBlockScales);
  EXPECT_EQ(&plan.operations[own.codes], &codes);
  EXPECT_EQ(own.result_bytes(), 8U);
  // 650 bytes are no whole words: scales of such codes come before them, so that they are aligned.
  EXPECT_LT(scales.begin, down.begin);
  for (const PlannedTensor& tensor : plan.tensors) EXPECT_EQ(tensor.begin % size_bytes(tensor.dtype), 0U) << tensor.name;
  EXPECT_EQ(tensor_named(plan, "model.norm.weight").dtype, DType::kBF16);
  EXPECT_EQ(config_of(plan).at("quantization_config").at("quant_method"), "fp8");
}

TEST_F(BlockScaledPlans, ScalesOfWholeWordsFollowTheirCodes) {
  TinyModel model{.num_layers = 1, .hidden = 8, .ffn = 130};
  model.config = {{"num_attention_heads", 1}, {"num_key_value_heads", 1}};
  model.dtypes = {{kGate, DType::kF8E4M3}};
  model.extra = {{kGate + "_scale_inv", DType::kF32, {2, 1}}};
  workshop_.write("even", model);
  const MergePlan plan = workshop_.plan("models: [{model: $/even}]\nmerge_method: linear\nparameters: {weight: 1}\nout_dtype: fp8_block\n");
  const PlannedTensor& gate = tensor_named(plan, kGate);
  EXPECT_EQ(tensor_named(plan, kGate + "_scale_inv").begin, gate.begin + gate.size_bytes);
}

TEST_F(BlockScaledPlans, ThatArePassedOnKeepTheirCodes) {
  const MergePlan plan = workshop_.plan(passed_on_ + "out_dtype: fp8_block\n");
  for (const std::string& name : {kGate, kGate + "_scale_inv", kDown, kDown + "_scale_inv"}) {
    EXPECT_EQ(operation_named(plan, name).kind, Operation::Kind::kCopy) << name;
    EXPECT_EQ(operation_named(plan, name).sources[0].kind, SourceView::Kind::kBytes) << name;
  }
  const MergePlan scaled = workshop_.plan(passed_on_ + "parameters: {scale: 2}\nout_dtype: fp8_block\n");
  EXPECT_TRUE(operation_named(scaled, kGate).block_scaled);
}

TEST_F(BlockScaledPlans, NeedAModelThatHasThem) {
  expect_error([&] { workshop_.plan("models: [{model: $/plain}]\nmerge_method: passthrough\nout_dtype: fp8_block\n"); },
               ErrorCode::kInvalidConfig, {"merge.yml", "no model holds block-scaled FP8"});
}

TEST_F(BlockScaledPlans, AreNotWrittenFused) {
  TinyModel model{.num_layers = 1, .num_experts = 1};
  const std::string weight = "model.layers.0.block_sparse_moe.experts.0.w1.weight";
  model.dtypes = {{weight, DType::kF8E4M3}};
  model.extra = {{weight + "_scale_inv", DType::kF32, {1, 1}}};
  workshop_.write("mixture", model);
  const std::string config = "models: [{model: $/mixture}]\nmerge_method: passthrough\nout_dtype: fp8_block\n";
  EXPECT_NO_THROW(workshop_.plan(config));
  PlanOptions fused;
  fused.layout = config::Layout::kFused;
  expect_error([&] { workshop_.plan(config, fused); }, ErrorCode::kUnsupported, {weight, "fused"});
}

}  // namespace
}  // namespace moeweld::plan
