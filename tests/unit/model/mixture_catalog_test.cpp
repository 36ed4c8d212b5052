#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moeweld/model/catalog.h"
#include "unit/model/headers.h"

namespace moeweld::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string layer_name(int layer, const std::string& rest) { return "model.layers." + std::to_string(layer) + "." + rest; }

void add_experts(Headers& headers, int layer, int num_experts) {
  headers.add(layer_name(layer, "mlp.gate.weight"), {static_cast<std::uint64_t>(num_experts), 4});
  for (int expert = 0; expert < num_experts; ++expert) {
    const std::string prefix = "mlp.experts." + std::to_string(expert) + ".";
    headers.add(layer_name(layer, prefix + "gate_proj.weight"), {6, 4});
    headers.add(layer_name(layer, prefix + "up_proj.weight"), {6, 4});
    headers.add(layer_name(layer, prefix + "down_proj.weight"), {4, 6});
  }
}

void add_shared(Headers& headers, int layer) {
  headers.add(layer_name(layer, "mlp.shared_experts.gate_proj.weight"), {12, 4});
  headers.add(layer_name(layer, "mlp.shared_experts.up_proj.weight"), {12, 4});
  headers.add(layer_name(layer, "mlp.shared_experts.down_proj.weight"), {4, 12});
}

void add_dense(Headers& headers, int layer) {
  headers.add(layer_name(layer, "mlp.gate_proj.weight"), {6, 4});
  headers.add(layer_name(layer, "mlp.up_proj.weight"), {6, 4});
  headers.add(layer_name(layer, "mlp.down_proj.weight"), {4, 6});
}

void add_latent_attention(Headers& headers, int layer, bool low_rank_query) {
  for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) headers.add(layer_name(layer, norm) + ".weight", {4});
  const auto add = [&](const char* name, const Shape& shape) { headers.add(layer_name(layer, "self_attn.") + name + ".weight", shape); };
  if (low_rank_query) {
    add("q_a_proj", {2, 4});
    add("q_a_layernorm", {2});
    add("q_b_proj", {4, 2});
  } else {
    add("q_proj", {4, 4});
  }
  add("kv_a_proj_with_mqa", {3, 4});
  add("kv_a_layernorm", {2});
  add("kv_b_proj", {4, 2});
  add("o_proj", {4, 4});
}

/// DeepSeek-V3 as released: one dense layer, one sparse, one of multi-token prediction.
Headers deepseek_v3(const char* config, bool with_mtp) {
  Headers headers(config);
  headers.add("model.embed_tokens.weight", {10, 4}).add("model.norm.weight", {4}).add("lm_head.weight", {10, 4});
  for (int layer = 0; layer < (with_mtp ? 3 : 2); ++layer) {
    add_latent_attention(headers, layer, true);
    if (layer == 0) {
      add_dense(headers, layer);
      continue;
    }
    add_experts(headers, layer, 2);
    headers.add(layer_name(layer, "mlp.gate.e_score_correction_bias"), {2}, DType::kF32);
    add_shared(headers, layer);
  }
  if (with_mtp) {
    for (const char* norm : {"enorm", "hnorm", "shared_head.norm"}) headers.add(layer_name(2, norm) + ".weight", {4});
    headers.add(layer_name(2, "eh_proj.weight"), {4, 8});
    for (const char* rows : {"embed_tokens", "shared_head.head"}) headers.add(layer_name(2, rows) + ".weight", {10, 4});
  }
  return headers;
}

const char* const kDeepseekV3 = R"({"architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", "num_hidden_layers": 2,
  "n_routed_experts": 2, "n_shared_experts": 1, "first_k_dense_replace": 1, "moe_layer_freq": 1, "num_nextn_predict_layers": 1,
  "q_lora_rank": 2, "vocab_size": 10})";

TEST(MixtureCatalog, DeepseekV3HasDenseSparseAndMtpLayers) {
  const Headers headers = deepseek_v3(kDeepseekV3, true);
  const Catalog catalog = headers.catalog();
  EXPECT_EQ(catalog.family->name, "deepseek_v3");
  EXPECT_EQ(catalog.entries.size(), headers.checkpoint().tensors.size());
  EXPECT_EQ(catalog.num_layers.at("model"), 2);
  EXPECT_EQ(catalog.num_mtp_layers, 1);
  EXPECT_EQ(catalog.sparse_layers, (std::vector<bool>{false, true, true}));
  EXPECT_FALSE(catalog.tied_head);
  EXPECT_TRUE(catalog.entries.at({1, -1, "router_correction_bias"}).keep_f32);
  EXPECT_FALSE(catalog.entries.at({1, -1, "router"}).keep_f32);
  EXPECT_TRUE(catalog.entries.at({2, -1, "mtp_head"}).vocabulary_rows);
  EXPECT_TRUE(catalog.entries.contains({2, 1, "expert_down_proj"}));
  for (const auto& [key, entry] : catalog.entries) {
    EXPECT_FALSE(key.role.find('.') != std::string::npos) << key.role << " is no word: the table does not know it";
    EXPECT_EQ(tensor_name(catalog.family, key), headers.checkpoint().tensors[entry.tensor].name);
  }
}

TEST(MixtureCatalog, MtpLayersMayHaveBeenRemoved) {
  const Catalog catalog = deepseek_v3(kDeepseekV3, false).catalog();
  EXPECT_EQ(catalog.num_mtp_layers, 0);
  EXPECT_EQ(catalog.sparse_layers.size(), 2U);
}

TEST(MixtureCatalog, LayersBeyondWhatTheConfigCountsAreRefused) {
  std::string config = kDeepseekV3;
  config.replace(config.find("predict_layers\": 1"), 18, "predict_layers\": 0");
  EXPECT_THAT(failure(deepseek_v3(config.c_str(), true)), AllOf(HasSubstr("is 2"), HasSubstr("3 layers")));
}

TEST(MixtureCatalog, AMixtureThatTheConfigPlacesElsewhereIsNamed) {
  std::string config = kDeepseekV3;
  config.replace(config.find("dense_replace\": 1"), 17, "dense_replace\": 2");
  const std::string message = failure(deepseek_v3(config.c_str(), false));
  EXPECT_THAT(message, AllOf(HasSubstr("model.layers.1.mlp.gate_proj.weight"), HasSubstr("is missing")));
  EXPECT_THAT(message, AllOf(HasSubstr("model.layers.1.mlp.gate.weight"), HasSubstr("layer 1 is dense")));
}

TEST(MixtureCatalog, AQueryWithoutLowRankIsWholeExactlyWhereTheConfigSaysNull) {
  for (const bool is_null : {false, true}) {
    Headers headers((std::string(R"({"architectures": ["DeepseekV2ForCausalLM"], "num_hidden_layers": 1, "n_routed_experts": 2,
      "n_shared_experts": 2, "first_k_dense_replace": 0, "q_lora_rank": )") +
                     (is_null ? "null}" : "2}"))
                        .c_str());
    headers.add("model.embed_tokens.weight", {10, 4}).add("model.norm.weight", {4}).add("lm_head.weight", {10, 4});
    add_latent_attention(headers, 0, false);
    add_experts(headers, 0, 2);
    add_shared(headers, 0);
    if (is_null) {
      EXPECT_NO_THROW(headers.catalog());
    } else {
      EXPECT_THAT(failure(headers), AllOf(HasSubstr("q_a_proj"), HasSubstr("q_b_proj"), Not(HasSubstr("kv_a"))));
    }
  }
}

TEST(SparseLayers, FollowsEachFamilysKeys) {
  const auto read = [](const char* architecture, const char* config, int num_layers = 4) {
    return sparse_layers(*find_family(architecture), formats::Json::parse(config), num_layers);
  };
  const auto layers = [](std::initializer_list<int> values) { return std::vector<bool>(values.begin(), values.end()); };
  EXPECT_EQ(read("Qwen2MoeForCausalLM", R"({"decoder_sparse_step": 2})"), layers({0, 1, 0, 1}));
  EXPECT_EQ(read("Qwen3MoeForCausalLM", R"({"decoder_sparse_step": 1, "mlp_only_layers": [0, 3, 9]})"), layers({0, 1, 1, 0}));
  EXPECT_EQ(read("DeepseekForCausalLM", R"({"first_k_dense_replace": 1, "moe_layer_freq": 2})"), layers({0, 0, 1, 0}));
  EXPECT_EQ(read("DeepseekV3ForCausalLM", "{}"), layers({0, 0, 0, 1}));
  EXPECT_EQ(read("Glm4MoeForCausalLM", "{}"), layers({0, 1, 1, 1}));
  EXPECT_EQ(read("Glm4MoeForCausalLM", R"({"mlp_layer_types": ["sparse", "dense", "sparse"]})"), layers({1, 0, 1, 1}));
  EXPECT_EQ(read("OlmoeForCausalLM", "{}"), layers({1, 1, 1, 1}));
  EXPECT_EQ(read("LlamaForCausalLM", "{}"), layers({0, 0, 0, 0}));
  EXPECT_THROW(read("Qwen2MoeForCausalLM", R"({"decoder_sparse_step": 0})"), Error);
  EXPECT_THROW(read("Qwen2MoeForCausalLM", R"({"mlp_only_layers": 3})"), Error);
}

Headers qwen3_moe(const char* count_key) {
  Headers headers((std::string(R"({"architectures": ["Qwen3MoeForCausalLM"], "num_hidden_layers": 1, ")") + count_key + "\": 2}").c_str());
  headers.add_decoder(1);
  for (const char* norm : {"q_norm", "k_norm"}) headers.add(layer_name(0, "self_attn.") + norm + ".weight", {2});
  add_experts(headers, 0, 2);
  return headers;
}

TEST(MixtureCatalog, TheNumberOfExpertsHasTwoNames) {
  EXPECT_EQ(qwen3_moe("num_experts").catalog().num_experts, 2);
  EXPECT_EQ(qwen3_moe("num_local_experts").catalog().num_experts, 2);
  EXPECT_THAT(failure(qwen3_moe("experts")), HasSubstr("no usable 'num_experts'"));
}

Headers granite_shared(const Shape& shared) {
  Headers headers(R"({"architectures": ["GraniteMoeSharedForCausalLM"], "num_hidden_layers": 1, "num_local_experts": 2,
    "shared_intermediate_size": 5})");
  headers.add_decoder(1).add(layer_name(0, "block_sparse_moe.router.layer.weight"), {2, 4});
  headers.add(layer_name(0, "block_sparse_moe.input_linear.weight"), {2, 12, 4});
  headers.add(layer_name(0, "block_sparse_moe.output_linear.weight"), {2, 4, 6});
  headers.add(layer_name(0, "shared_mlp.input_linear.weight"), shared);
  headers.add(layer_name(0, "shared_mlp.output_linear.weight"), {4, 5});
  return headers;
}

TEST(MixtureCatalog, GranitesSharedExpertIsASliceToo) {
  const Headers headers = granite_shared({10, 4});
  const Catalog catalog = headers.catalog();
  EXPECT_EQ(catalog.layout, Layout::kFused);
  const auto begin = [&](const std::string& name) { return headers.checkpoint().tensors[headers.checkpoint().by_name.at(name)].begin; };
  const std::uint64_t shared = begin(layer_name(0, "shared_mlp.input_linear.weight"));
  EXPECT_EQ(catalog.entries.at({0, -1, "shared_gate_proj"}).begin, shared);
  EXPECT_EQ(catalog.entries.at({0, -1, "shared_up_proj"}).begin, shared + 5 * 4 * 2);
  EXPECT_EQ(catalog.entries.at({0, -1, "shared_up_proj"}).shape, (Shape{5, 4}));
  const std::uint64_t experts = begin(layer_name(0, "block_sparse_moe.input_linear.weight"));
  EXPECT_EQ(catalog.entries.at({0, 1, "expert_up_proj"}).begin, experts + 3 * 6 * 4 * 2);
  EXPECT_EQ(catalog.entries.at({0, 1, "expert_down_proj"}).shape, (Shape{4, 6}));
  EXPECT_THAT(failure(granite_shared({9, 4})), HasSubstr("2 x rows"));
}

/// A Llama whose FFN is block-scaled FP8; `change` sees each scale's name and shape before it is added.
template <typename Change>
Headers scaled_llama(Change change,
                     const char* quantization = R"("quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},)") {
  Headers headers(
      (std::string(R"({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, )") + quantization + R"("vocab_size": 10})").c_str());
  headers.add_decoder(1);
  for (const char* matrix : {"gate_proj", "up_proj", "down_proj"}) {
    const bool down = matrix[0] == 'd';
    const std::string weight = layer_name(0, "mlp.") + matrix;
    headers.add(weight + ".weight", down ? Shape{129, 576} : Shape{576, 129}, DType::kF8E4M3);
    std::string name = weight + ".weight_scale_inv";
    Shape shape = down ? Shape{2, 5} : Shape{5, 2};
    if (change(name, shape)) headers.add(name, shape, DType::kF32);
  }
  return headers;
}

TEST(BlockScales, BelongToTheirWeight) {
  const Headers headers = scaled_llama([](std::string& name, Shape&) {
    if (const auto at = name.find("up_proj.weight_scale_inv"); at != std::string::npos) name = name.substr(0, at) + "up_proj.scale";
    return true;
  });
  const Catalog catalog = headers.catalog();
  EXPECT_TRUE(catalog.has_block_scales);
  EXPECT_EQ(catalog.entries.size(), headers.checkpoint().tensors.size() - 3);
  for (const char* role : {"mlp_gate_proj", "mlp_up_proj", "mlp_down_proj"}) {
    const CatalogEntry& entry = catalog.entries.at({0, -1, role});
    ASSERT_TRUE(entry.scale) << role;
    EXPECT_EQ(entry.scale->begin, headers.checkpoint().tensors[entry.scale->tensor].begin);
    EXPECT_EQ(entry.scale->dtype, DType::kF32);
  }
  EXPECT_EQ(catalog.entries.at({0, -1, "mlp_up_proj"}).scale->shape, (Shape{5, 2}));
  EXPECT_FALSE(catalog.entries.at({0, -1, "attention_q"}).scale);
}

TEST(BlockScales, MissingAndMisshapenOnesAreAllNamed) {
  const std::string message = failure(scaled_llama([](std::string& name, Shape& shape) {
    if (name.find("gate_proj") != std::string::npos) return false;
    if (name.find("up_proj") != std::string::npos) shape = {4, 2};
    return true;
  }));
  EXPECT_THAT(message, AllOf(HasSubstr("mlp.gate_proj.weight"), HasSubstr("scales are missing")));
  EXPECT_THAT(message, AllOf(HasSubstr("mlp.up_proj.weight_scale_inv"), HasSubstr("[4, 2]"), HasSubstr("[5, 2]")));
}

TEST(BlockScales, OfFusedExpertsAreThoseOfTheWholeMatrix) {
  // 2 x 100 rows: the up matrix begins within a block.
  Headers headers(R"({"architectures": ["Qwen3MoeForCausalLM"], "num_hidden_layers": 1, "num_experts": 3, "vocab_size": 10,
                      "quantization_config": {"quant_method": "fp8"}})");
  headers.add_decoder(1);
  for (const char* norm : {"q_norm", "k_norm"}) headers.add(layer_name(0, "self_attn.") + norm + ".weight", {2});
  headers.add(layer_name(0, "mlp.gate.weight"), {3, 4});
  headers.add(layer_name(0, "mlp.experts.gate_up_proj"), {3, 200, 130}, DType::kF8E4M3);
  headers.add(layer_name(0, "mlp.experts.gate_up_proj_scale_inv"), {3, 2, 2}, DType::kF32);
  headers.add(layer_name(0, "mlp.experts.down_proj"), {3, 130, 100}, DType::kF8E4M3);
  headers.add(layer_name(0, "mlp.experts.down_proj_scale_inv"), {3, 2, 1}, DType::kF32);
  const Catalog catalog = headers.catalog();
  const CatalogEntry& gate = catalog.entries.at({0, 2, "expert_gate_proj"});
  const CatalogEntry& up = catalog.entries.at({0, 2, "expert_up_proj"});
  const std::uint64_t scales =
      headers.checkpoint().tensors[headers.checkpoint().by_name.at(layer_name(0, "mlp.experts.gate_up_proj_scale_inv"))].begin;
  ASSERT_TRUE(gate.scale && up.scale);
  EXPECT_EQ(gate.scale->begin, scales + 2 * 4 * 4);
  EXPECT_EQ(up.scale->begin, scales + 2 * 4 * 4);
  EXPECT_EQ(up.scale->shape, (Shape{2, 2}));
  EXPECT_EQ(gate.scale->first_row, 0U);
  EXPECT_EQ(up.scale->first_row, 100U);
  EXPECT_EQ(up.begin, gate.begin + 100 * 130);
}

TEST(BlockScales, WithoutAWeightOfCodesAreRefused) {
  Headers headers = scaled_llama([](std::string&, Shape&) { return true; });
  headers.add(layer_name(0, "nothing.weight_scale_inv"), {1, 1}, DType::kF32);
  headers.add(layer_name(0, "self_attn.q_proj.weight_scale_inv"), {1, 1}, DType::kF32);
  EXPECT_THAT(failure(headers), AllOf(HasSubstr("no 'model.layers.0.nothing.weight'"), HasSubstr("is BF16 instead of F8_E4M3")));
}

TEST(BlockScales, OfOtherSizesAreRefusedByName) {
  try {
    scaled_llama([](std::string&, Shape&) { return true; },
                 R"("quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]},)")
        .catalog();
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), HasSubstr("[64,64]"));
  }
}

TEST(BlockScales, CodesWithoutAnyScaleHaveNoneToMiss) {
  EXPECT_FALSE(scaled_llama([](std::string&, Shape&) { return false; }, "").catalog().has_block_scales);
}

TEST(BlockScales, ThatConfigJsonDoesNotAnnounceAreReadWithANote) {
  const Catalog catalog = scaled_llama([](std::string&, Shape&) { return true; }, "").catalog();
  EXPECT_TRUE(catalog.has_block_scales);
  EXPECT_THAT(catalog.notes, testing::ElementsAre(HasSubstr("no quantization_config")));
}

TEST(BlockScales, OfOtherFormatsAreRefusedByName) {
  EXPECT_THAT(
      failure(scaled_llama([](std::string&, Shape&) { return true; }, R"("quantization_config": {"quant_method": "fp8", "fmt": "e5m2"},)"),
              ErrorCode::kUnsupported),
      HasSubstr("'e5m2'"));
}

}  // namespace
}  // namespace moeweld::model
