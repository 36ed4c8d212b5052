#include "moeweld/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moeweld/base/error.h"

namespace moeweld::model {
namespace {

using ::testing::HasSubstr;

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

// The defaults are those of transformers 4.57.6 and 5.23, configuration_{mistral,mixtral,llama}.py.
TEST(MixtralConfig, SpellsOutTheDefaultsOfItsBase) {
  std::vector<std::string> notes;
  const Json mixtral = mixtral_config(json(R"({"model_type": "mistral", "hidden_size": 64, "num_attention_heads": 4})"), 4, 2, notes);
  EXPECT_EQ(mixtral.at("architectures"), json(R"(["MixtralForCausalLM"])"));
  EXPECT_EQ(mixtral.at("num_local_experts"), 4);
  EXPECT_EQ(mixtral.at("num_experts_per_tok"), 2);
  EXPECT_EQ(mixtral.at("sliding_window"), 4096);
  EXPECT_EQ(mixtral.at("rope_theta"), 1e4);
  EXPECT_EQ(mixtral.at("rms_norm_eps"), 1e-6);
  EXPECT_EQ(mixtral.at("head_dim"), 16);
  EXPECT_EQ(mixtral.at("num_key_value_heads"), 8);
}

TEST(MixtralConfig, ALlamaHasNoWindowAndAKeyHeadForEachHead) {
  std::vector<std::string> notes;
  const Json mixtral = mixtral_config(json(R"({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4})"), 2, 1, notes);
  EXPECT_TRUE(mixtral.at("sliding_window").is_null());
  EXPECT_EQ(mixtral.at("num_key_value_heads"), 4);
}

TEST(MixtralConfig, RefusesWhatAMixtralCannotHold) {
  for (const char* change :
       {R"({"attention_bias": true})", R"({"mlp_bias": true})", R"({"hidden_act": "gelu"})", R"({"partial_rotary_factor": 0.5})"}) {
    Json dense = json(R"({"model_type": "llama"})");
    dense.update(json(change));
    std::vector<std::string> notes;
    try {
      mixtral_config(dense, 2, 2, notes);
      ADD_FAILURE() << change;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_THAT(error.what(), HasSubstr(json(change).begin().key()));
    }
  }
}

TEST(MixtralConfig, NotesFieldsThatAreNotCarriedOver) {
  std::vector<std::string> notes;
  mixtral_config(json(R"({"model_type": "llama", "special_thing": 1})"), 2, 2, notes);
  EXPECT_THAT(notes, ::testing::Contains(HasSubstr("special_thing")));
}

TEST(MistralConfig, SpellsOutTheDefaultsOfMixtral) {
  std::vector<std::string> notes;
  const Json mistral = mistral_config(json(R"({"model_type": "mixtral"})"), notes);
  EXPECT_EQ(mistral.at("rope_theta"), 1e6);
  EXPECT_EQ(mistral.at("rms_norm_eps"), 1e-5);
  ASSERT_TRUE(mistral.contains("sliding_window"));
  EXPECT_TRUE(mistral.at("sliding_window").is_null());
  EXPECT_FALSE(mistral.contains("num_local_experts"));
}

TEST(MistralConfig, ADenseModelComesBackFromItsMixtral) {
  for (
      const char* text :
      {R"({"model_type": "mistral", "rope_parameters": {"rope_theta": 3e5, "rope_type": "linear", "factor": 2.0}, "sliding_window": null})",
       R"({"model_type": "mistral", "rope_theta": 3e5, "head_dim": 96, "rms_norm_eps": 2e-6})", R"({"model_type": "mistral"})"}) {
    std::vector<std::string> notes;
    const Json dense = json(text);
    EXPECT_THAT(config_differences(dense, mistral_config(mixtral_config(dense, 4, 2, notes), notes)), ::testing::IsEmpty()) << text;
  }
}

TEST(ConfigDifferences, NamesBothValues) {
  const auto differences =
      config_differences(json(R"({"model_type": "llama"})"), json(R"({"model_type": "llama", "rope_theta": 1000000.0})"));
  EXPECT_THAT(differences, ::testing::ElementsAre("rope_theta: 10000 and 1000000"));
}

}  // namespace
}  // namespace moeweld::model
