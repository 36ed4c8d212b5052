#include "moeweld/model/extracted_config.h"

#include "moeweld/model/assembled_config.h"
#include "moeweld/model/model_config.h"
#include "unit/expect_error.h"

namespace moeweld::model {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Family& family(const char* architecture) { return *find_family(architecture); }

Json extracted(const char* architecture, const char* config) {
  std::vector<std::string> notes;
  return extracted_config(family(architecture), Json::parse(config), 24, notes);
}

TEST(ExtractedFamily, IsTheDenseTwin) {
  const std::pair<const char*, const char*> twins[] = {
      {"MixtralForCausalLM", "mistral"}, {"Qwen2MoeForCausalLM", "qwen2"},     {"Qwen3MoeForCausalLM", "qwen3"},
      {"DeepseekForCausalLM", "llama"},  {"GraniteMoeForCausalLM", "granite"}, {"GraniteMoeSharedForCausalLM", "granite"},
      {"OlmoeForCausalLM", "olmoe"},
  };
  for (const auto& [mixture, dense] : twins) EXPECT_EQ(extracted_family(family(mixture))->name, dense) << mixture;
  for (const char* mixture : {"PhiMoEForCausalLM", "DeepseekV3ForCausalLM", "MiniMaxM2ForCausalLM"}) {
    EXPECT_EQ(extracted_family(family(mixture)), nullptr) << mixture;
    expect_error([&] { extracted(mixture, "{}"); }, ErrorCode::kUnsupported, {"no dense twin"});
  }
}

// Defaults of transformers 4.57.6 and 5.23, configuration_{mixtral,qwen2_moe,qwen3_moe,granitemoe,olmoe}.py.
TEST(ExtractedConfig, SpellsOutTheDefaultsOfItsMixture) {
  const struct {
    const char *architecture, *config, *expected;
  } cases[] = {
      {"MixtralForCausalLM", R"({"model_type": "mixtral"})",
       R"({"model_type": "mistral", "rope_theta": 1000000, "rms_norm_eps": 1e-5, "sliding_window": null, "num_key_value_heads": 8,
           "head_dim": 128, "hidden_size": 4096})"},
      {"Qwen2MoeForCausalLM", R"({"model_type": "qwen2_moe"})",
       R"({"model_type": "qwen2", "hidden_size": 2048, "num_key_value_heads": 16, "head_dim": 128, "rms_norm_eps": 1e-6,
           "use_sliding_window": false})"},
      {"Qwen3MoeForCausalLM", R"({"model_type": "qwen3_moe", "head_dim": 96})",
       R"({"model_type": "qwen3", "head_dim": 96, "num_attention_heads": 32, "num_key_value_heads": 4, "attention_bias": false})"},
      {"GraniteMoeSharedForCausalLM",
       R"({"model_type": "granitemoeshared", "attention_multiplier": 0.5, "embedding_multiplier": 12, "residual_multiplier": 0.25,
           "logits_scaling": 6})",
       R"({"model_type": "granite", "attention_multiplier": 0.5, "embedding_multiplier": 12.0, "residual_multiplier": 0.25,
           "logits_scaling": 6.0, "mlp_bias": false, "num_key_value_heads": 32})"},
      {"GraniteMoeForCausalLM", R"({"model_type": "granitemoe"})", R"({"attention_multiplier": 1.0, "logits_scaling": 1.0})"},
      {"DeepseekForCausalLM", R"({"model_type": "deepseek", "rope_scaling": {"type": "linear", "factor": 4.0}})",
       R"({"model_type": "llama", "head_dim": 128, "rope_theta": 10000, "attention_bias": false, "mlp_bias": false})"},
      {"OlmoeForCausalLM", R"({"model_type": "olmoe", "clip_qkv": 8.0})",
       R"({"model_type": "olmoe", "num_experts": 1, "num_experts_per_tok": 1, "norm_topk_prob": false, "clip_qkv": 8.0,
           "rms_norm_eps": 1e-5})"},
  };
  for (const auto& row : cases) {
    SCOPED_TRACE(row.architecture);
    const Json config = extracted(row.architecture, row.config);
    EXPECT_EQ(config.at("intermediate_size"), 24);
    EXPECT_EQ(config.at("architectures"), Json::array({extracted_family(family(row.architecture))->architectures.front()}));
    EXPECT_FALSE(config.contains("num_local_experts"));
    const Json expected = Json::parse(row.expected);
    for (const auto& [key, value] : expected.items()) {
      ASSERT_TRUE(config.contains(key)) << key;
      EXPECT_EQ(config.at(key), value) << key;
    }
  }
  EXPECT_EQ(extracted("DeepseekForCausalLM", cases[5].config).at("rope_scaling").at("factor"), 4.0);
}

TEST(ExtractedConfig, RefusesWhatTheTwinCannotHold) {
  const struct {
    const char *architecture, *config, *key;
  } cases[] = {
      {"Qwen2MoeForCausalLM", R"({"model_type": "qwen2_moe", "qkv_bias": false})", "qkv_bias"},
      {"MixtralForCausalLM", R"({"model_type": "mixtral", "hidden_act": "gelu"})", "hidden_act"},
      {"MixtralForCausalLM", R"({"model_type": "mixtral", "attention_bias": true})", "attention_bias"},
  };
  for (const auto& row : cases) {
    SCOPED_TRACE(row.config);
    expect_error([&] { extracted(row.architecture, row.config); }, ErrorCode::kUnsupported, {row.key});
  }
  expect_error([] { extracted("MixtralForCausalLM", R"({"model_type": "mixtral", "hidden_size": -1})"); }, ErrorCode::kInvalidInput,
               {"hidden_size", "-1"});
}

TEST(ExtractedConfig, NotesOtherFieldsButNotThoseOfExperts) {
  std::vector<std::string> notes;
  extracted_config(family("MixtralForCausalLM"),
                   Json::parse(R"({"model_type": "mixtral", "num_local_experts": 8, "router_aux_loss_coef": 0.1, "special_thing": 1})"), 24,
                   notes);
  EXPECT_THAT(notes, ::testing::ElementsAre(HasSubstr("special_thing")));
}

TEST(ExtractedConfig, ADenseModelComesBackFromItsMixture) {
  const struct {
    const char *architecture, *config;
  } cases[] = {
      {"MixtralForCausalLM",
       R"({"model_type": "mistral", "rope_parameters": {"rope_theta": 3e5, "rope_type": "linear", "factor": 2.0}, "sliding_window": null})"},
      {"MixtralForCausalLM", R"({"model_type": "mistral", "rope_theta": 3e5, "head_dim": 96, "rms_norm_eps": 2e-6})"},
      {"MixtralForCausalLM", R"({"model_type": "mistral"})"},
      {"DeepseekForCausalLM", R"({"model_type": "llama", "rope_theta": 1e5, "rope_scaling": {"type": "linear", "factor": 4.0}})"},
      {"Qwen2MoeForCausalLM", R"({"model_type": "qwen2", "rope_theta": 1e6, "num_key_value_heads": 4})"},
      {"Qwen3MoeForCausalLM", R"({"model_type": "qwen3", "attention_bias": true})"},
  };
  for (const auto& row : cases) {
    SCOPED_TRACE(row.config);
    const Json dense = Json::parse(row.config);
    const bool gated = std::string(row.architecture) == "Qwen2MoeForCausalLM";
    const AssembledShape shape{.num_experts = 4,
                               .experts_per_token = 2,
                               .expert_width = 24,
                               .shared_width = gated ? 24U : 0U,
                               .shared_gated = gated,
                               .sparse_layers = std::vector<bool>(32, true)};
    std::vector<std::string> notes;
    const Json mixture = assembled_config(family(row.architecture), dense, shape, RopeMode::kKeep, notes);
    const Json back = extracted_config(family(row.architecture), mixture, 24, notes);
    EXPECT_EQ(back.at("model_type"), dense.at("model_type"));
    EXPECT_THAT(config_differences(dense, back), IsEmpty());
  }
}

}  // namespace
}  // namespace moeweld::model
