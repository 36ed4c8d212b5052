#include "moeweld/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moeweld/base/error.h"

namespace moeweld::model {
namespace {

Json json(const char* text) { return Json::parse(text); }

TEST(Rope, BothGenerationsSayTheSame) {
  const Rope older = read_rope(json(R"({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}})"), 1e4);
  const Rope newer = read_rope(json(R"({"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0}})"), 1e4);
  EXPECT_EQ(older.theta, 5e5);
  EXPECT_EQ(newer.theta, 5e5);
  for (const Rope& rope : {older, newer}) {
    EXPECT_EQ(rope.scaling.at("type"), "linear");
    EXPECT_EQ(rope.scaling.at("rope_type"), "linear");
    EXPECT_EQ(rope.scaling.at("factor"), 4.0);
    EXPECT_FALSE(rope.scaling.contains("rope_theta"));
  }
}

TEST(Rope, DefaultTypeIsNoScaling) {
  EXPECT_TRUE(read_rope(json(R"({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}})"), 1e4).scaling.is_null());
  EXPECT_EQ(read_rope(json("{}"), 1e4).theta, 1e4);
}

TEST(Rope, IsWrittenInTheOlderForm) {
  Json config = json(R"({"rope_parameters": {"rope_theta": 1e6, "rope_type": "llama3", "factor": 8.0, "partial_rotary_factor": 0.5}})");
  write_rope(config, read_rope(config, 1e4));
  EXPECT_FALSE(config.contains("rope_parameters"));
  EXPECT_EQ(config.at("rope_theta"), 1e6);
  EXPECT_EQ(config.at("rope_scaling").at("rope_type"), "llama3");
  EXPECT_EQ(config.at("partial_rotary_factor"), 0.5);
}

TEST(Rope, OneForEachLayerTypeIsLeftAlone) {
  Json config = json(R"({"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}})");
  const Json before = config;
  write_rope(config, read_rope(config, 1e4));
  EXPECT_EQ(config, before);
}

TEST(SelectLayers, ListsFollowTheLayers) {
  Json config = json(R"({"num_hidden_layers": 3, "layer_types": ["a", "b", "c"], "no_rope_layers": [1, 0, 1], "mlp_only_layers": [1],
                         "eos_token_id": [7, 8, 9]})");
  std::vector<std::string> notes;
  select_layers(config, {0, 1, 1, 2}, notes);
  EXPECT_EQ(config.at("num_hidden_layers"), 4);
  EXPECT_EQ(config.at("layer_types"), json(R"(["a", "b", "b", "c"])"));
  EXPECT_EQ(config.at("no_rope_layers"), json("[1, 0, 0, 1]"));
  EXPECT_EQ(config.at("mlp_only_layers"), json("[1, 2]"));
  EXPECT_EQ(config.at("eos_token_id"), json("[7, 8, 9]"));
  EXPECT_FALSE(notes.empty());
}

TEST(SelectLayers, ReachesANestedTextConfigAndLeavesTheVisionPart) {
  Json config = json(R"({"text_config": {"num_hidden_layers": 2, "layer_types": ["a", "b"]}, "vision_config": {"num_hidden_layers": 2}})");
  std::vector<std::string> notes;
  select_layers(config, {1}, notes);
  EXPECT_EQ(config.at("text_config").at("num_hidden_layers"), 1);
  EXPECT_EQ(config.at("text_config").at("layer_types"), json(R"(["b"])"));
  EXPECT_EQ(config.at("vision_config").at("num_hidden_layers"), 2);
}

TEST(SelectLayers, AMovedLayerKeepsTheKindThatItsPositionGaveIt) {
  Json config =
      json(R"({"model_type": "qwen3", "num_hidden_layers": 3, "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 2})");
  std::vector<std::string> notes;
  select_layers(config, {0, 2, 1}, notes);
  EXPECT_EQ(config.at("layer_types"), json(R"(["full_attention", "sliding_attention", "full_attention"])"));
}

TEST(SelectLayers, AllLayersInOrderChangeNothing) {
  Json config = json(R"({"model_type": "gemma3_text", "num_hidden_layers": 2})");
  const Json before = config;
  std::vector<std::string> notes;
  select_layers(config, {0, 1}, notes);
  EXPECT_EQ(config, before);
  EXPECT_TRUE(notes.empty());
}

TEST(SelectLayers, RefusesALayerThatIsNotThere) {
  Json config = json(R"({"num_hidden_layers": 2})");
  std::vector<std::string> notes;
  EXPECT_THROW(select_layers(config, {2}, notes), Error);
}

TEST(SetDtype, WritesTheKeyThatEachGenerationReads) {
  Json config = json(R"({"dtype": "float32", "text_config": {"dtype": "float32"}})");
  set_dtype(config, DType::kBF16);
  EXPECT_EQ(config.at("torch_dtype"), "bfloat16");
  EXPECT_EQ(config.at("dtype"), "bfloat16");
  EXPECT_EQ(config.at("text_config").at("dtype"), "bfloat16");
}

TEST(ConfigDifferences, NamesBothValues) {
  const auto differences =
      config_differences(json(R"({"model_type": "llama"})"), json(R"({"model_type": "llama", "rope_theta": 1000000.0})"));
  EXPECT_THAT(differences, ::testing::ElementsAre("rope_theta: 10000 and 1000000"));
}

}  // namespace
}  // namespace moeweld::model
