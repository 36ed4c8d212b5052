#include "moeweld/model/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moeweld/model/family.h"
#include "unit/model/headers.h"

namespace moeweld::model {
namespace {

using ::testing::HasSubstr;

const char* const kLlama = R"({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "vocab_size": 10})";
const char* const kMixtral =
    R"({"architectures": ["MixtralForCausalLM"], "num_hidden_layers": 1, "num_local_experts": 2, "vocab_size": 10})";

Headers fused_mixtral() {
  Headers headers(kMixtral);
  headers.add_decoder(1).add("model.layers.0.mlp.gate.weight", {2, 4});
  headers.add("model.layers.0.mlp.experts.gate_up_proj", {2, 12, 4}).add("model.layers.0.mlp.experts.down_proj", {2, 4, 6});
  return headers;
}

TEST(Catalog, EveryTensorOfALlamaHasItsRole) {
  Headers headers(kLlama);
  headers.add_decoder(2).add_dense_ffn(2);
  const Catalog catalog = headers.catalog();
  EXPECT_EQ(catalog.entries.size(), headers.checkpoint().tensors.size());
  EXPECT_EQ(catalog.num_layers.at("model"), 2);
  EXPECT_TRUE(catalog.entries.at({-1, -1, "token_embedding"}).vocabulary_rows);
  EXPECT_EQ(catalog.entries.at({-1, -1, "token_embedding"}).place, Place::kBeforeLayers);
  EXPECT_EQ(catalog.entries.at({-1, -1, "lm_head"}).place, Place::kAfterLayers);
  EXPECT_EQ(catalog.entries.at({1, -1, "mlp_up_proj"}).shape, (Shape{6, 4}));
}

TEST(Catalog, NamesComeBackFromTheirKeys) {
  Headers headers(kLlama);
  headers.add_decoder(2).add_dense_ffn(2).add("model.layers.1.extra.experts.3.bias", {4});
  const Catalog catalog = headers.catalog();
  for (const auto& [key, entry] : catalog.entries) {
    EXPECT_EQ(tensor_name(catalog.family, key), headers.checkpoint().tensors[entry.tensor].name);
  }
}

TEST(Catalog, DerivedTensorsAreDroppedWithAReason) {
  Headers headers(kLlama);
  headers.add_decoder(2).add_dense_ffn(2).add("model.layers.0.self_attn.rotary_emb.inv_freq", {2}, DType::kF32);
  const Catalog catalog = headers.catalog();
  ASSERT_EQ(catalog.dropped.size(), 1U);
  EXPECT_EQ(catalog.dropped[0].first, "model.layers.0.self_attn.rotary_emb.inv_freq");
  EXPECT_FALSE(catalog.dropped[0].second.empty());
}

TEST(Catalog, FusedExpertsAreSlicesWithGateRowsBeforeUpRows) {
  const Headers headers = fused_mixtral();
  const Catalog catalog = headers.catalog();
  EXPECT_EQ(catalog.layout, Layout::kFused);
  const auto* gate_up = &headers.checkpoint().tensors[headers.checkpoint().by_name.at("model.layers.0.mlp.experts.gate_up_proj")];
  const auto* down = &headers.checkpoint().tensors[headers.checkpoint().by_name.at("model.layers.0.mlp.experts.down_proj")];
  const std::uint64_t part = 6 * 4 * 2;  // BF16 [6, 4]
  EXPECT_EQ(catalog.entries.at({0, 0, "expert_gate_proj"}).begin, gate_up->begin);
  EXPECT_EQ(catalog.entries.at({0, 0, "expert_up_proj"}).begin, gate_up->begin + part);
  EXPECT_EQ(catalog.entries.at({0, 1, "expert_gate_proj"}).begin, gate_up->begin + 2 * part);
  EXPECT_EQ(catalog.entries.at({0, 1, "expert_down_proj"}).begin, down->begin + part);
  EXPECT_EQ(catalog.entries.at({0, 1, "expert_down_proj"}).shape, (Shape{4, 6}));
  EXPECT_TRUE(catalog.entries.contains({0, -1, "router"}));
}

TEST(Catalog, BothLayoutsHaveTheSameKeys) {
  Headers split(kMixtral);
  split.add_decoder(1).add("model.layers.0.block_sparse_moe.gate.weight", {2, 4});
  for (const std::string expert : {"0", "1"}) {
    const std::string prefix = "model.layers.0.block_sparse_moe.experts." + expert;
    split.add(prefix + ".w1.weight", {6, 4}).add(prefix + ".w2.weight", {4, 6}).add(prefix + ".w3.weight", {6, 4});
  }
  const Catalog a = split.catalog();
  const Catalog b = fused_mixtral().catalog();
  EXPECT_EQ(a.layout, Layout::kPerExpert);
  ASSERT_EQ(a.entries.size(), b.entries.size());
  for (const auto& [key, entry] : a.entries) {
    ASSERT_TRUE(b.entries.contains(key)) << key.role;
    EXPECT_EQ(b.entries.at(key).shape, entry.shape) << key.role;
  }
}

TEST(Catalog, RefusesAMatrixStoredInBothLayouts) {
  Headers headers = fused_mixtral();
  headers.add("model.layers.0.block_sparse_moe.experts.0.w1.weight", {6, 4});
  EXPECT_THAT(failure(headers), HasSubstr("mixes the per-expert and the fused layout"));
}

TEST(Catalog, RefusesAFusedTensorThatDoesNotDivide) {
  Headers headers(kMixtral);
  headers.add_decoder(1).add("model.layers.0.mlp.gate.weight", {2, 4});
  headers.add("model.layers.0.mlp.experts.gate_up_proj", {2, 11, 4}).add("model.layers.0.mlp.experts.down_proj", {2, 4, 6});
  EXPECT_THAT(failure(headers), HasSubstr("[2, 11, 4]"));
}

TEST(Catalog, RefusesLayersUnlikeTheConfig) {
  Headers headers(kLlama);
  headers.add_decoder(3).add_dense_ffn(3);
  EXPECT_THAT(failure(headers), ::testing::AllOf(HasSubstr("is 2"), HasSubstr("3 layers")));
}

TEST(Catalog, NamesEveryMissingTensor) {
  Headers headers(kLlama);
  headers.add_decoder(2).add_dense_ffn(1).add("model.layers.1.mlp.up_proj.weight", {6, 4});
  const std::string message = failure(headers);
  EXPECT_THAT(message, HasSubstr("model.layers.1.mlp.gate_proj.weight"));
  EXPECT_THAT(message, HasSubstr("model.layers.1.mlp.down_proj.weight"));
}

TEST(Catalog, TheHeadMayBeAbsentOnlyWhenTied) {
  for (const bool tied : {false, true}) {
    Headers headers(tied ? R"({"architectures": ["MistralForCausalLM"], "num_hidden_layers": 1, "tie_word_embeddings": true})"
                         : R"({"architectures": ["MistralForCausalLM"], "num_hidden_layers": 1})");
    const Headers whole = Headers(kLlama).add_decoder(1).add_dense_ffn(1);
    for (const auto& tensor : whole.checkpoint().tensors) {
      if (tensor.name != "lm_head.weight") headers.add(tensor.name, tensor.shape);
    }
    if (tied) {
      EXPECT_NO_THROW(headers.catalog());
    } else {
      EXPECT_THAT(failure(headers), HasSubstr("lm_head.weight"));
    }
  }
}

TEST(Catalog, OtherArchitecturesAreMatchedNameByName) {
  Headers headers(R"({"architectures": ["GPT2LMHeadModel"], "n_layer": 2, "vocab_size": 10})");
  headers.add("wte.weight", {10, 4}).add("wpe.weight", {8, 4}).add("h.1.attn.c_attn.weight", {4, 12}).add("ln_f.weight", {4});
  const Catalog catalog = headers.catalog();
  EXPECT_EQ(catalog.family, nullptr);
  EXPECT_EQ(catalog.num_layers.at("h"), 2);
  EXPECT_TRUE(catalog.entries.contains({1, -1, "h.{layer}.attn.c_attn.weight"}));
  EXPECT_TRUE(catalog.entries.at({-1, -1, "wte.weight"}).vocabulary_rows);
  EXPECT_FALSE(catalog.entries.at({-1, -1, "wpe.weight"}).vocabulary_rows);
  EXPECT_EQ(catalog.entries.at({-1, -1, "wpe.weight"}).place, Place::kBeforeLayers);
  EXPECT_EQ(catalog.entries.at({-1, -1, "ln_f.weight"}).place, Place::kAfterLayers);
}

TEST(Catalog, EncoderAndDecoderCountTheirOwnLayers) {
  Headers headers(R"({"architectures": ["WhisperForConditionalGeneration"]})");
  headers.add("model.encoder.layers.3.fc1.weight", {4, 4}).add("model.decoder.layers.1.fc1.weight", {4, 4});
  const Catalog catalog = headers.catalog();
  EXPECT_EQ(catalog.num_layers.at("model.encoder"), 4);
  EXPECT_EQ(catalog.num_layers.at("model.decoder"), 2);
  EXPECT_TRUE(catalog.entries.contains({3, -1, "model.encoder.layers.{layer}.fc1.weight"}));
}

TEST(Catalog, RefusesANameThatHoldsAPlaceHolder) {
  Headers headers(R"({"architectures": ["Unheard"]})");
  headers.add("a.{layer}.b", {1});
  EXPECT_THAT(failure(headers), HasSubstr("place holder"));
}

TEST(LayerPrefix, IsWhatStandsBeforeTheListOfLayers) {
  EXPECT_EQ(layer_prefix("model.encoder.layers.3.fc1.weight"), "model.encoder");
  EXPECT_EQ(layer_prefix("h.3.ln_1.weight"), "h");
  EXPECT_EQ(layer_prefix("model.norm.weight"), "");
  EXPECT_EQ(layer_prefix("model.layers.01.x"), "");
}

}  // namespace
}  // namespace moeweld::model
