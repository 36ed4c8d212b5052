#include "moeweld/model/assembled_config.h"

#include <cmath>

#include "unit/expect_error.h"

namespace moeweld::model {
namespace {

using formats::Json;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Family& family_of(const char* architecture) { return *find_family(architecture); }

/// Of two layers, all sparse.
AssembledShape shape(std::uint64_t shared_width = 0, bool shared_gated = false) {
  return {.num_experts = 4,
          .experts_per_token = 2,
          .expert_width = 12,
          .shared_width = shared_width,
          .shared_gated = shared_gated,
          .sparse_layers = {true, true}};
}

/// A base of two layers with 4 heads of 16.
Json base(const std::string& model_type, const char* more = "{}") {
  Json config = {{"model_type", model_type}, {"hidden_size", 64}, {"num_attention_heads", 4}, {"num_hidden_layers", 2}};
  if (model_type == "qwen3") config["head_dim"] = 16;
  config.update(Json::parse(more));
  return config;
}

Json assembled(const char* architecture, const Json& dense, const AssembledShape& wanted, RopeMode rope = RopeMode::kKeep) {
  std::vector<std::string> notes;
  return assembled_config(family_of(architecture), dense, wanted, rope, notes);
}

struct Row {
  const char* architecture;
  const char* source;
  std::uint64_t shared_width;
  bool shared_gated;
  const char* expected;  ///< fields, the experts' and what differs between families
};
// What the bases' fields mean where they say nothing: configuration_{llama,mistral,qwen2,qwen3}.py of transformers 4.57.6 and 5.23.
constexpr Row kRows[] = {
    {"MixtralForCausalLM", "llama", 0, false,
     R"({"num_local_experts": 4, "intermediate_size": 12, "sliding_window": null, "num_key_value_heads": 4, "rms_norm_eps": 1e-6})"},
    {"MixtralForCausalLM", "mistral", 0, false,
     R"({"num_local_experts": 4, "intermediate_size": 12, "sliding_window": 4096, "num_key_value_heads": 8, "rms_norm_eps": 1e-6})"},
    {"Qwen2MoeForCausalLM", "llama", 24, true,
     R"({"num_experts": 4, "moe_intermediate_size": 12, "shared_expert_intermediate_size": 24, "norm_topk_prob": true, "qkv_bias": true,
         "use_sliding_window": false, "decoder_sparse_step": 1, "mlp_only_layers": []})"},
    {"Qwen2MoeForCausalLM", "qwen2", 24, true, R"({"qkv_bias": true, "num_key_value_heads": 32, "norm_topk_prob": true})"},
    {"Qwen3MoeForCausalLM", "qwen3", 0, false,
     R"({"num_experts": 4, "moe_intermediate_size": 12, "norm_topk_prob": true, "attention_bias": false, "use_sliding_window": false,
         "decoder_sparse_step": 1, "mlp_only_layers": []})"},
    {"DeepseekForCausalLM", "llama", 24, false,
     R"({"n_routed_experts": 4, "moe_intermediate_size": 12, "n_shared_experts": 2, "norm_topk_prob": true, "scoring_func": "softmax",
         "first_k_dense_replace": 0, "moe_layer_freq": 1, "attention_bias": false})"},
    {"GraniteMoeSharedForCausalLM", "llama", 30, false,
     R"({"num_local_experts": 4, "intermediate_size": 12, "shared_intermediate_size": 30, "attention_multiplier": 0.25,
         "embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0, "attention_bias": false})"},
};

TEST(AssembledConfig, SaysEveryFieldThatChangesResults) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(std::string(row.architecture) + " of " + row.source);
    const Json config = assembled(row.architecture, base(row.source), shape(row.shared_width, row.shared_gated));
    Json expected = Json::parse(row.expected);
    expected.update(Json::parse(R"({"num_experts_per_tok": 2, "head_dim": 16, "hidden_act": "silu", "rope_theta": 10000,
                                    "num_hidden_layers": 2, "rms_norm_eps": 1e-6, "tie_word_embeddings": false})"));
    expected["architectures"] = {row.architecture};
    expected["model_type"] = family_of(row.architecture).model_type;
    for (const auto& [key, value] : expected.items()) {
      ASSERT_TRUE(config.contains(key)) << key;
      EXPECT_EQ(config.at(key), value) << key;
    }
    EXPECT_FALSE(config.contains("rope_parameters"));
  }
}

TEST(AssembledConfig, RefusesWhatChangesResults) {
  const struct {
    const char *architecture, *source, *change, *key;
  } cases[] = {
      {"MixtralForCausalLM", "llama", R"({"attention_bias": true})", "attention_bias"},
      {"MixtralForCausalLM", "llama", R"({"mlp_bias": true})", "mlp_bias"},
      {"MixtralForCausalLM", "llama", R"({"hidden_act": "gelu"})", "hidden_act"},
      {"MixtralForCausalLM", "llama", R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor"},
      {"MixtralForCausalLM", "llama", R"({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}})", "rope_parameters"},
      {"GraniteMoeSharedForCausalLM", "mistral", R"({"sliding_window": 64})", "sliding_window"},
      {"GraniteMoeSharedForCausalLM", "llama", R"({"head_dim": 32})", "head_dim"},
      {"DeepseekForCausalLM", "llama", R"({"head_dim": 32})", "head_dim"},
      {"Qwen3MoeForCausalLM", "qwen3", R"({"layer_types": ["full_attention", "sliding_attention"]})", "layer_types"},
  };
  for (const auto& row : cases) {
    SCOPED_TRACE(std::string(row.architecture) + " " + row.change);
    expect_error([&] { assembled(row.architecture, base(row.source, row.change), shape()); }, ErrorCode::kUnsupported, {row.key});
  }
  // All at once.
  expect_error([&] { assembled("MixtralForCausalLM", base("llama", R"({"attention_bias": true, "mlp_bias": true})"), shape()); },
               ErrorCode::kUnsupported, {"attention_bias", "mlp_bias"});
}

TEST(AssembledConfig, RefusesSharedExpertsThatTheFamilyHasNot) {
  expect_error([] { assembled("MixtralForCausalLM", base("llama"), shape(12)); }, ErrorCode::kUnsupported, {"no shared experts"});
  expect_error([] { assembled("DeepseekForCausalLM", base("llama"), shape(18)); }, ErrorCode::kUnsupported, {"18", "12"});
  expect_error([] { assembled("Qwen2MoeForCausalLM", base("llama"), shape()); }, ErrorCode::kUnsupported, {"always has a shared expert"});
  expect_error([] { assembled("Qwen3MoeForCausalLM", base("llama"), shape()); }, ErrorCode::kUnsupported, {"llama"});
}

TEST(AssembledConfig, NotesFieldsThatAreNotCarriedOver) {
  std::vector<std::string> notes;
  assembled_config(family_of("MixtralForCausalLM"), base("llama", R"({"special_thing": 1})"), shape(), RopeMode::kKeep, notes);
  EXPECT_THAT(notes, Contains(HasSubstr("special_thing")));
}

TEST(AssembledConfig, RopeIsKeptFoldedOrScaledByLength) {
  const char* linear = R"({"rope_theta": 1e5, "rope_scaling": {"type": "linear", "factor": 4.0}})";
  const Json kept = assembled("MixtralForCausalLM", base("llama", linear), shape());
  EXPECT_EQ(kept.at("rope_theta"), 1e5);
  EXPECT_EQ(kept.at("rope_scaling").at("factor"), 4.0);
  const Json folded = assembled("MixtralForCausalLM", base("llama", linear), shape(), RopeMode::kFoldTheta);
  EXPECT_EQ(folded.at("rope_theta"), 4e5);
  EXPECT_TRUE(folded.value("rope_scaling", Json()).is_null());
  const Json ntk = assembled("MixtralForCausalLM", base("llama", linear), shape(), RopeMode::kNtk);
  EXPECT_DOUBLE_EQ(ntk.at("rope_theta").get<double>(), 1e5 * std::pow(4.0, 16.0 / 14.0));
  const char* yarn = R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})";
  for (const RopeMode mode : {RopeMode::kFoldTheta, RopeMode::kNtk}) {
    expect_error([&] { assembled("MixtralForCausalLM", base("llama", yarn), shape(), mode); }, ErrorCode::kUnsupported, {"yarn", "keep"});
  }
  EXPECT_THAT(rope_warning(base("llama", linear), RopeMode::kKeep), HasSubstr("linear scaling by 4"));
  EXPECT_THAT(rope_warning(base("llama"), RopeMode::kKeep), IsEmpty());
}

TEST(SparseLayerFields, SayTheSetOrRefuseIt) {
  const Family& qwen = family_of("Qwen3MoeForCausalLM");
  EXPECT_EQ(sparse_layer_fields(qwen, {false, true, false, true}), Json::parse(R"({"decoder_sparse_step": 1, "mlp_only_layers": [0, 2]})"));
  const Family& deepseek = family_of("DeepseekForCausalLM");
  EXPECT_EQ(sparse_layer_fields(deepseek, {false, false, true, false, true}),
            Json::parse(R"({"first_k_dense_replace": 2, "moe_layer_freq": 2})"));
  expect_error([&] { sparse_layer_fields(deepseek, {true, true, false, true}); }, ErrorCode::kUnsupported, {"0, 1, 3"});
  expect_error([&] { sparse_layer_fields(family_of("MixtralForCausalLM"), {true, false}); }, ErrorCode::kUnsupported, {"layers 0 are"});
  expect_error([&] { sparse_layer_fields(qwen, {false, false}); }, ErrorCode::kUnsupported, {"at least one"});
}

/// Every set of four layers that can be said is read back as itself.
TEST(SparseLayerFields, AreReadBackAsTheSameSet) {
  int num_said = 0;
  for (const char* architecture : {"Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", "DeepseekForCausalLM"}) {
    for (unsigned set = 1; set < 16; ++set) {
      std::vector<bool> sparse;
      for (unsigned layer = 0; layer < 4; ++layer) sparse.push_back((set >> layer & 1U) != 0);
      Json fields;
      try {
        fields = sparse_layer_fields(family_of(architecture), sparse);
      } catch (const Error&) {
        continue;
      }
      fields[std::string(family_of(architecture).num_experts_keys.front())] = 4;
      EXPECT_EQ(sparse_layers(family_of(architecture), fields, 4), sparse) << architecture << " " << fields;
      ++num_said;
    }
  }
  // All 15 of each Qwen; of a DeepSeek: 1111 0111 0011 0001, 1010 0010, 1001 and 1000 from layer 0 on, by definition.
  EXPECT_EQ(num_said, 15 + 15 + 8);
}

}  // namespace
}  // namespace moeweld::model
