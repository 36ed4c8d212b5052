#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using ::testing::ElementsAre;

/// A speech model of two stacks, as Whisper's are named.
class MergeModules : public ::testing::Test {
 protected:
  MergeModules() {
    write("a", 2, 2);
    write("b", 2, 3);
  }
  void write(const std::string& name, int encoder_layers, int decoder_layers) {
    std::vector<formats::TensorLayout> tensors = {{"model.encoder.conv1.weight", DType::kBF16, {3, 4}}};
    for (int layer = 0; layer < encoder_layers; ++layer) tensors.push_back({of_layer("encoder", layer), DType::kBF16, {4, 4}});
    tensors.push_back({"model.decoder.embed_tokens.weight", DType::kBF16, {10, 4}});
    for (int layer = 0; layer < decoder_layers; ++layer) tensors.push_back({of_layer("decoder", layer), DType::kBF16, {4, 4}});
    tensors.push_back({"model.decoder.layer_norm.weight", DType::kBF16, {4}});
    workshop_.write(name, tensors,
                    {{"architectures", {"WhisperForConditionalGeneration"}},
                     {"model_type", "whisper"},
                     {"d_model", 4},
                     {"vocab_size", 10},
                     {"encoder_layers", encoder_layers},
                     {"decoder_layers", decoder_layers}});
  }
  static std::string of_layer(const std::string& stack, int layer) {
    return "model." + stack + ".layers." + std::to_string(layer) + ".fc1.weight";
  }

  Workshop workshop_;
};

TEST_F(MergeModules, EachStackHasItsOwnSlices) {
  const MergePlan plan = workshop_.plan(
      "modules:\n"
      "  encoder:\n"
      "    slices:\n"
      "      - sources: [{model: $/a, layer_range: [0, 1]}]\n"
      "      - sources: [{model: $/b, layer_range: [0, 2]}]\n"
      "  decoder:\n"
      "    slices:\n"
      "      - sources: [{model: $/b, layer_range: [1, 3]}]\n"
      "merge_method: passthrough\n");
  EXPECT_THAT(source_names(plan, of_layer("encoder", 0)), ElementsAre("a:" + of_layer("encoder", 0)));
  EXPECT_THAT(source_names(plan, of_layer("encoder", 1)), ElementsAre("b:" + of_layer("encoder", 0)));
  EXPECT_THAT(source_names(plan, of_layer("encoder", 2)), ElementsAre("b:" + of_layer("encoder", 1)));
  EXPECT_FALSE(has_operation(plan, of_layer("encoder", 3)));
  EXPECT_THAT(source_names(plan, of_layer("decoder", 0)), ElementsAre("b:" + of_layer("decoder", 1)));
  EXPECT_THAT(source_names(plan, of_layer("decoder", 1)), ElementsAre("b:" + of_layer("decoder", 2)));
  EXPECT_FALSE(has_operation(plan, of_layer("decoder", 2)));
  EXPECT_THAT(source_names(plan, "model.decoder.layer_norm.weight"), ElementsAre("b:model.decoder.layer_norm.weight"));
  const formats::Json config = output_config_of(plan);
  EXPECT_EQ(config["encoder_layers"], 3);
  EXPECT_EQ(config["decoder_layers"], 2);
}

TEST_F(MergeModules, AModulesParametersWinOverTheConfigurations) {
  write("b", 2, 2);
  const MergePlan plan = workshop_.plan(
      "modules:\n"
      "  encoder: {models: [{model: $/a}, {model: $/b}], parameters: {t: 0.25}}\n"
      "  decoder: {models: [{model: $/a}, {model: $/b}]}\n"
      "base_model: $/a\nmerge_method: slerp\nparameters: {t: 0.75}\n");
  for (const int layer : {0, 1}) {
    EXPECT_EQ(shared_parameter(plan, of_layer("encoder", layer), "t"), 0.25);
    EXPECT_EQ(shared_parameter(plan, of_layer("decoder", layer), "t"), 0.75);
  }
  EXPECT_EQ(shared_parameter(plan, "model.encoder.conv1.weight", "t"), 0.25);
  EXPECT_EQ(shared_parameter(plan, "model.decoder.embed_tokens.weight", "t"), 0.75);
}

TEST_F(MergeModules, RefusesAModuleThatNoTensorBelongsTo) {
  expect_error(
      [&] {
        workshop_.plan("modules:\n  encodr: {models: [{model: $/a}]}\n  decoder: {models: [{model: $/a}]}\nmerge_method: passthrough\n");
      },
      ErrorCode::kInvalidConfig, {"merge.yml:2", "'encodr'", "'model.encoder'"});
}

TEST_F(MergeModules, RefusesAStackThatNoModuleCovers) {
  expect_error([&] { workshop_.plan("modules:\n  decoder: {models: [{model: $/a}]}\nmerge_method: passthrough\n"); },
               ErrorCode::kInvalidConfig, {"model.encoder"});
}

}  // namespace
}  // namespace moeweld::plan
