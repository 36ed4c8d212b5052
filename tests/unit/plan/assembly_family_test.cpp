#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kHidden = 4;

TinyModel dense(const std::string& family, std::uint64_t ffn = 6) {
  TinyModel model{.ffn = ffn};
  if (family == "llama") return model;
  model.architecture = family == "mistral" ? "MistralForCausalLM" : family == "qwen2" ? "Qwen2ForCausalLM" : "Qwen3ForCausalLM";
  model.config["model_type"] = family;
  if (family == "mistral") model.config["sliding_window"] = nullptr;
  if (family == "qwen3") model.config["head_dim"] = 2;
  for (int layer = 0; layer < model.num_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".self_attn.";
    if (family == "qwen2") {
      for (const char* matrix : {"q_proj", "k_proj", "v_proj"}) model.extra.push_back({prefix + matrix + ".bias", DType::kBF16, {kHidden}});
    } else if (family == "qwen3") {
      for (const char* norm : {"q_norm", "k_norm"}) model.extra.push_back({prefix + norm + ".weight", DType::kBF16, {2}});
    }
  }
  return model;
}

class OutputFamily : public ::testing::Test {
 protected:
  OutputFamily() {
    for (const char* family : {"llama", "mistral", "qwen2", "qwen3"}) workshop_.write(family, dense(family));
    workshop_.write("wide", dense("llama", 9));
  }

  /// base_model on line 1, gate_mode on line 2, experts on lines 4 and 5; `rest` begins on line 6.
  MergePlan plan(const std::string& family, const std::string& gate, const std::string& rest) {
    return workshop_.plan("base_model: $/" + family + "\ngate_mode: " + gate + "\nexperts:\n  - {source_model: $/" + family +
                              ", positive_token_ids: [[1]]}\n  - {source_model: $/" + family + ", positive_token_ids: [[2]]}\n" + rest,
                          {.allow_degenerate = true});
  }
  void expect_refused(const std::string& family, const std::string& gate, const std::string& rest,
                      std::initializer_list<std::string> parts) {
    SCOPED_TRACE(family + " " + gate + " " + rest);
    expect_error([&] { plan(family, gate, rest); }, ErrorCode::kInvalidConfig, parts);
  }
  static std::string shared(const std::string& family, const std::string& more = "") {
    return "shared_experts:\n  - {source_model: $/" + family + more + "}\n";
  }
  Workshop workshop_;
};

const std::string kPrompts = ", positive_token_ids: [[3]]";

TEST_F(OutputFamily, FollowsFromSourcesAndSharedExperts) {
  struct Case {
    std::string family, gate, rest, architecture;
  };
  const std::vector<Case> cases = {
      {"llama", "random", "", "MixtralForCausalLM"},
      {"mistral", "cheap_embed", "", "MixtralForCausalLM"},
      {"qwen3", "cheap_embed", "", "Qwen3MoeForCausalLM"},
      {"llama", "cheap_embed", shared("llama"), "GraniteMoeSharedForCausalLM"},
      {"mistral", "random", shared("mistral"), "GraniteMoeSharedForCausalLM"},
      {"llama", "cheap_embed", shared("llama", kPrompts), "Qwen2MoeForCausalLM"},
      {"mistral", "cheap_embed", shared("mistral", kPrompts), "Qwen2MoeForCausalLM"},
      {"qwen2", "cheap_embed", shared("qwen2", kPrompts), "Qwen2MoeForCausalLM"},
      {"qwen2", "random", shared("qwen2"), "Qwen2MoeForCausalLM"},
      {"llama", "random", "architecture: deepseek\n", "DeepseekForCausalLM"},
      {"llama", "random", shared("llama") + "architecture: deepseek moe\n", "DeepseekForCausalLM"},
      {"llama", "random", shared("llama") + "architecture: qwen moe\n", "Qwen2MoeForCausalLM"},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.family + " " + each.gate + " " + each.rest);
    EXPECT_EQ(output_config_of(plan(each.family, each.gate, each.rest))["architectures"][0], each.architecture);
  }
}

TEST_F(OutputFamily, WhatIsInNoRowIsRefusedWithItsReason) {
  expect_refused("qwen2", "random", "", {"merge.yml:4", "Qwen2-MoE has a shared expert", "no 'shared_experts'"});
  expect_refused("qwen2", "cheap_embed", shared("qwen2"), {"merge.yml:7", "Qwen2-MoE", "gate_mode: random"});
  expect_refused("qwen3", "random", shared("qwen3"), {"merge.yml:7", "Qwen3-MoE has no shared experts"});
  expect_refused("qwen3", "random", "architecture: mixtral\n", {"merge.yml:6", "Mixtral is assembled from llama or mistral", "qwen3"});
  expect_refused("llama", "random", shared("llama") + "architecture: mixtral\n", {"merge.yml:7", "Mixtral has no shared experts"});
  expect_refused("llama", "random", "architecture: granite\n", {"merge.yml:6", "no 'shared_experts'"});
  expect_refused("llama", "cheap_embed", shared("llama", kPrompts) + "architecture: deepseek\n", {"merge.yml:7", "have no gate"});
  expect_refused("llama", "cheap_embed", shared("llama", kPrompts) + "  - {source_model: $/llama}\n", {"merge.yml:8", "no prompts"});
  workshop_.write("mixed", dense("qwen3"));
  expect_refused("llama", "random", shared("mixed"), {"merge.yml:7", "LlamaForCausalLM", "Qwen3ForCausalLM"});
}

// Outputs of shared experts add up: gate and up rows one below the other, down columns side by side.
TEST_F(OutputFamily, SharedExpertsAreOneOfTheSummedWidth) {
  const MergePlan plan = this->plan("llama", "random", shared("llama") + "  - {source_model: $/wide}\n");
  EXPECT_EQ(tensor_named(plan, "model.layers.1.block_sparse_moe.input_linear.weight").shape, (Shape{2, 12, kHidden}));
  EXPECT_EQ(tensor_named(plan, "model.layers.1.shared_mlp.input_linear.weight").shape, (Shape{30, kHidden}));
  EXPECT_EQ(tensor_named(plan, "model.layers.1.shared_mlp.output_linear.weight").shape, (Shape{kHidden, 15}));
  const formats::Json config = output_config_of(plan);
  EXPECT_EQ(config["intermediate_size"], 6);
  EXPECT_EQ(config["shared_intermediate_size"], 15);
  EXPECT_EQ(config["attention_multiplier"], 1.0 / std::sqrt(2.0));
  bool seen = false;
  for (const Operation& operation : plan.operations) {
    if (plan.tensors[operation.tensor].name != "model.layers.1.shared_mlp.output_linear.weight") continue;
    seen = true;
    const SourceView& view = operation.sources.at(0);
    ASSERT_EQ(view.kind, SourceView::Kind::kColumns);
    EXPECT_EQ(source_name(plan, view.children.at(0)), "llama:model.layers.1.mlp.down_proj.weight");
    EXPECT_EQ(source_name(plan, view.children.at(1)), "wide:model.layers.1.mlp.down_proj.weight");
  }
  EXPECT_TRUE(seen);
}

TEST_F(OutputFamily, AQwen2MoeHasOneGateRowAndBiasesAlways) {
  const MergePlan plan = this->plan("llama", "cheap_embed", shared("llama", kPrompts) + "  - {source_model: $/wide" + kPrompts + "}\n");
  EXPECT_EQ(tensor_named(plan, "model.layers.0.mlp.shared_expert_gate.weight").shape, (Shape{1, kHidden}));
  ASSERT_EQ(plan.slots.size(), 1U);
  EXPECT_EQ(plan.slots[0].num_shared, 2U);
  EXPECT_EQ(plan.slots[0].shape, (Shape{3, kHidden}));
  EXPECT_EQ(operation_named(plan, "model.layers.0.mlp.shared_expert_gate.weight").fill.first_index, 2 * kHidden);
  const Operation& bias = operation_named(plan, "model.layers.1.self_attn.k_proj.bias");
  EXPECT_EQ(bias.kind, Operation::Kind::kConstant);
  EXPECT_EQ(bias.constant, 0);
  EXPECT_EQ(bias.task.shape, (Shape{kHidden}));
  EXPECT_FALSE(has_operation(plan, "model.layers.1.self_attn.o_proj.bias"));
  EXPECT_THAT(plan.composition, Contains(HasSubstr("biases: zero")));
  EXPECT_THAT(plan.notes, Contains(HasSubstr("llama.cpp does not renormalise")));
  const formats::Json config = output_config_of(plan);
  EXPECT_EQ(config["shared_expert_intermediate_size"], 15);
  EXPECT_EQ(config["norm_topk_prob"], true);

  const MergePlan own = this->plan("qwen2", "cheap_embed", shared("qwen2", kPrompts));
  EXPECT_THAT(source_names(own, "model.layers.1.self_attn.k_proj.bias"), ElementsAre("qwen2:model.layers.1.self_attn.k_proj.bias"));
}

// Shards share their copy's router row; the shared experts have one gate row, however the routed ones came about.
TEST_F(OutputFamily, AGateOfSharedExpertsIsOneRowWhereARecipeNamesNoExperts) {
  const MergePlan plan = workshop_.plan(
      "base_model: $/llama\ngate_mode: random\narchitecture: qwen moe\nrecipe: fine_grained\ncopies: 2\nshards: 2\n" + shared("llama"));
  const Operation& router = operation_named(plan, "model.layers.1.mlp.gate.weight");
  EXPECT_EQ(router.task.shape, (Shape{4, kHidden}));
  EXPECT_EQ(router.repeat_rows, 2U);
  const Operation& shared_gate = operation_named(plan, "model.layers.1.mlp.shared_expert_gate.weight");
  EXPECT_EQ(shared_gate.task.shape, (Shape{1, kHidden}));
  EXPECT_EQ(shared_gate.repeat_rows, 1U);
}

TEST_F(OutputFamily, OtherLayersKeepTheFfnOfTheBase) {
  const MergePlan plan = this->plan("qwen3", "random", "moe_layers: {every: 2, first: 1}\n");
  EXPECT_THAT(source_names(plan, "model.layers.0.mlp.up_proj.weight"), ElementsAre("qwen3:model.layers.0.mlp.up_proj.weight"));
  EXPECT_FALSE(has_operation(plan, "model.layers.0.mlp.gate.weight"));
  EXPECT_TRUE(has_operation(plan, "model.layers.1.mlp.gate.weight"));
  EXPECT_FALSE(has_operation(plan, "model.layers.1.mlp.up_proj.weight"));
  const formats::Json config = output_config_of(plan);
  EXPECT_EQ(config["mlp_only_layers"], formats::Json::array({0}));
  EXPECT_EQ(config["decoder_sparse_step"], 1);
  EXPECT_THAT(plan.composition, Contains("layers with the plain FFN: 0"));
  EXPECT_EQ(output_config_of(this->plan("llama", "random", "architecture: deepseek\nmoe_layers: [1]\n"))["first_k_dense_replace"], 1);
}

TEST_F(OutputFamily, LayersAreRefusedWhereTheFamilyCannotSayThem) {
  for (const char* rest : {"moe_layers: [0]\n", "moe_layers: {every: 2}\n"}) {
    expect_error([&] { plan("llama", "random", rest); }, ErrorCode::kUnsupported, {"merge.yml:6", "MixtralForCausalLM", "layers 0"});
  }
}

TEST_F(OutputFamily, DeepSeekCountsSharedExpertsByTheWidthOfAnExpert) {
  workshop_.write("double", dense("llama", 12));
  const formats::Json config = output_config_of(plan("llama", "random", shared("double") + "architecture: deepseek\n"));
  EXPECT_EQ(config["n_shared_experts"], 2);
  EXPECT_EQ(config["n_routed_experts"], 2);
  expect_error([&] { plan("llama", "random", shared("wide") + "architecture: deepseek\n"); }, ErrorCode::kInvalidInput,
               {"merge.yml:7", "9 neurons", "multiple of the experts' 6"});
}

TEST_F(OutputFamily, WhatTheFamilyCannotHoldIsRefusedAtTheLineOfTheBase) {
  TinyModel biased = dense("llama");
  biased.config["attention_bias"] = true;
  biased.config["partial_rotary_factor"] = 0.5;
  workshop_.write("llama", biased);
  expect_error([&] { plan("llama", "random", ""); }, ErrorCode::kUnsupported,
               {"merge.yml:1", workshop_.path("llama"), "attention_bias is true", "partial_rotary_factor is 0.5"});
}

TEST_F(OutputFamily, RopeIsKeptOrFoldedAndBothAreSaid) {
  TinyModel scaled = dense("llama");
  scaled.config["rope_theta"] = 100000.0;
  scaled.config["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  workshop_.write("llama", scaled);
  const MergePlan kept = plan("llama", "random", "");
  EXPECT_EQ(output_config_of(kept)["rope_theta"], 100000);
  EXPECT_EQ(output_config_of(kept)["rope_scaling"]["factor"], 4);
  EXPECT_THAT(kept.warnings, Contains(HasSubstr("rope: fold_theta")));
  const MergePlan folded = plan("llama", "random", "rope: fold_theta\n");
  EXPECT_EQ(output_config_of(folded)["rope_theta"], 400000);
  EXPECT_TRUE(output_config_of(folded)["rope_scaling"].is_null());
  EXPECT_THAT(folded.warnings, Contains(HasSubstr("approximation")));
  scaled.config["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}};
  workshop_.write("llama", scaled);
  expect_error([&] { plan("llama", "random", "rope: ntk\n"); }, ErrorCode::kUnsupported, {"merge.yml:6", "rope: ntk", "yarn"});
}

}  // namespace
}  // namespace moeweld::plan
