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

const std::string kRouterName = "model.layers.1.block_sparse_moe.gate.weight";

std::string expert_name(int layer, int index, const std::string& matrix) {
  return "model.layers." + std::to_string(layer) + ".block_sparse_moe.experts." + std::to_string(index) + "." + matrix + ".weight";
}

std::vector<const Operation*> operations_named(const MergePlan& plan, const std::string& name) {
  std::vector<const Operation*> result;
  for (const Operation& operation : plan.operations) {
    if (operation.name == name) result.push_back(&operation);
  }
  return result;
}

/// A DeepSeek-V3 of one layer with experts, without a head, and with 4 experts in 2 groups.
TinyModel grouped() {
  TinyModel model;
  model.architecture = "DeepseekV3ForCausalLM";
  model.num_layers = 1;
  model.config = {{"n_routed_experts", 4},      {"num_experts_per_tok", 2}, {"n_group", 2},           {"topk_group", 1},
                  {"first_k_dense_replace", 0}, {"n_shared_experts", 0},    {"q_lora_rank", nullptr}, {"num_nextn_predict_layers", 0}};
  return model;
}

std::vector<formats::TensorLayout> tensors_of_grouped() {
  std::vector<formats::TensorLayout> result = {{"model.layers.0.mlp.gate.e_score_correction_bias", DType::kF32, {4}}};
  const auto add = [&](const std::string& name, Shape shape) { result.push_back({name, DType::kBF16, std::move(shape)}); };
  add("model.embed_tokens.weight", {10, 4});
  const std::string layer = "model.layers.0.";
  for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) add(layer + norm + ".weight", {4});
  add(layer + "self_attn.kv_a_layernorm.weight", {2});
  for (const char* matrix : {"q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}) add(layer + "self_attn." + matrix + ".weight", {4, 4});
  add(layer + "mlp.gate.weight", {4, 4});
  for (int expert = 0; expert < 4; ++expert) {
    const std::string own = layer + "mlp.experts." + std::to_string(expert) + ".";
    add(own + "gate_proj.weight", {6, 4});
    add(own + "up_proj.weight", {6, 4});
    add(own + "down_proj.weight", {4, 6});
  }
  add("model.norm.weight", {4});
  add("lm_head.weight", {10, 4});
  return result;
}

class AdditionPlanner : public ::testing::Test {
 protected:
  AdditionPlanner() {
    workshop_.write("base", {.num_experts = 3});
    workshop_.write("other", {.num_experts = 2});
    workshop_.write("dense", {});
  }
  Workshop workshop_;
};

std::string added(const std::string& experts, const std::string& more = "gate_mode: random\n") {
  return "base_model: $/base\n" + more + "experts:\n" + experts;
}

TEST_F(AdditionPlanner, ExistingExpertsStayAndNewOnesFollow) {
  const MergePlan plan = workshop_.plan(added("  - source_model: $/dense\n  - {source_model: $/other, expert: [1, 0]}\n"));
  for (int index = 0; index < 3; ++index) {
    EXPECT_THAT(source_names(plan, expert_name(1, index, "w2")), ElementsAre("base:" + expert_name(1, index, "w2")));
    EXPECT_EQ(operation_named(plan, expert_name(1, index, "w2")).kind, Operation::Kind::kCopy);
  }
  EXPECT_THAT(source_names(plan, expert_name(0, 3, "w1")), ElementsAre("dense:model.layers.0.mlp.gate_proj.weight"));
  EXPECT_THAT(source_names(plan, expert_name(1, 3, "w2")), ElementsAre("dense:model.layers.1.mlp.down_proj.weight"));
  EXPECT_THAT(source_names(plan, expert_name(0, 4, "w3")), ElementsAre("other:" + expert_name(0, 1, "w3")));
  EXPECT_THAT(source_names(plan, expert_name(1, 4, "w3")), ElementsAre("other:" + expert_name(1, 0, "w3")));
  EXPECT_THAT(source_names(plan, "model.layers.0.self_attn.q_proj.weight"), ElementsAre("base:model.layers.0.self_attn.q_proj.weight"));
  EXPECT_EQ(tensor_named(plan, kRouterName).shape, (Shape{5, 4}));
  const auto parts = operations_named(plan, kRouterName);
  ASSERT_EQ(parts.size(), 2U);
  EXPECT_EQ(parts[0]->kind, Operation::Kind::kCopy);
  EXPECT_EQ(parts[0]->task.shape, (Shape{3, 4}));
  EXPECT_EQ(source_name(plan, parts[0]->sources.at(0)), "base:" + kRouterName);
  EXPECT_EQ(parts[1]->kind, Operation::Kind::kRandomFill);
  EXPECT_EQ(parts[1]->task.shape, (Shape{2, 4}));
  const formats::Json config = output_config_of(plan);
  EXPECT_EQ(config["num_local_experts"], 5);
  EXPECT_EQ(config["num_experts_per_tok"], 1) << "the base's, unless experts_per_token says otherwise";
}

TEST_F(AdditionPlanner, EveryTensorOfEverySourceIsUsedOrDropped) {
  const MergePlan plan = workshop_.plan(added("  - source_model: $/dense\n  - {source_model: $/other, expert: 1}\n"));
  const std::size_t ffn = 2 * 3;
  EXPECT_EQ(plan.dropped.size(), tensors_of({}).size() - ffn + tensors_of({.num_experts = 2}).size() - ffn);
  EXPECT_THAT(plan.composition, Contains("expert 3: FFN of " + workshop_.path("dense")));
  EXPECT_THAT(plan.composition, Contains("expert 4: expert 1 of " + workshop_.path("other")));
}

TEST_F(AdditionPlanner, GatesFromPromptsHaveRowsForTheNewExpertsOnly) {
  const MergePlan plan = workshop_.plan(added("  - {source_model: $/dense, positive_token_ids: [[1, 2]]}\n", "gate_mode: cheap_embed\n"));
  ASSERT_EQ(plan.slots.size(), 1U);
  EXPECT_EQ(plan.slots[0].shape, (Shape{1, 4}));
  const auto parts = operations_named(plan, kRouterName);
  ASSERT_EQ(parts.size(), 2U);
  EXPECT_EQ(parts[1]->kind, Operation::Kind::kSlot);
}

TEST_F(AdditionPlanner, ExpertsPerTokenMayBeGiven) {
  EXPECT_EQ(output_config_of(
                workshop_.plan(added("  - source_model: $/dense\n", "gate_mode: random\nexperts_per_token: 4\n")))["num_experts_per_tok"],
            4);
  expect_error([&] { workshop_.plan(added("  - source_model: $/dense\n", "gate_mode: random\nexperts_per_token: 5\n")); },
               ErrorCode::kInvalidConfig, {"merge.yml:3", "takes 5 experts", "only 4"});
}

TEST_F(AdditionPlanner, TheFusedLayoutHoldsTheSame) {
  const MergePlan plan = workshop_.plan(added("  - source_model: $/dense\n", "gate_mode: random\nlayout: fused\n"));
  EXPECT_EQ(tensor_named(plan, "model.layers.1.mlp.experts.gate_up_proj").shape, (Shape{4, 12, 4}));
  EXPECT_EQ(tensor_named(plan, "model.layers.1.mlp.gate.weight").shape, (Shape{4, 4}));
}

TEST_F(AdditionPlanner, WhereRoutingIsGroupedNewExpertsStandAtTheEndOfEachGroup) {
  workshop_.write("grouped", tensors_of_grouped(), config_of(grouped()));
  workshop_.write("shallow", {.num_layers = 1});
  const std::string experts = "  - source_model: $/shallow\n  - {source_model: $/grouped, expert: 0}\n";
  const MergePlan plan = workshop_.plan("base_model: $/grouped\ngate_mode: random\nexperts:\n" + experts);
  const std::vector<std::string> origins = {
      "grouped:model.layers.0.mlp.experts.0.up_proj.weight", "grouped:model.layers.0.mlp.experts.1.up_proj.weight",
      "shallow:model.layers.0.mlp.up_proj.weight",           "grouped:model.layers.0.mlp.experts.2.up_proj.weight",
      "grouped:model.layers.0.mlp.experts.3.up_proj.weight", "grouped:model.layers.0.mlp.experts.0.up_proj.weight"};
  for (std::size_t i = 0; i < origins.size(); ++i) {
    EXPECT_THAT(source_names(plan, "model.layers.0.mlp.experts." + std::to_string(i) + ".up_proj.weight"), ElementsAre(origins[i]));
  }
  const auto rows = operations_named(plan, "model.layers.0.mlp.gate.weight");
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[2]->sources.at(0).begin, rows[0]->sources.at(0).begin + 2 * 4 * 2);
  EXPECT_NE(rows[1]->fill.first_index, rows[3]->fill.first_index) << "the same random row twice";
  // The new entries of the correction bias are the mean of their group's.
  const auto biases = operations_named(plan, "model.layers.0.mlp.gate.e_score_correction_bias");
  ASSERT_EQ(biases.size(), 4U);
  const std::uint64_t first = biases[0]->sources.at(0).begin;
  EXPECT_EQ(biases[0]->task.shape, (Shape{2}));
  ASSERT_EQ(biases[3]->sources.size(), 2U);
  EXPECT_EQ(merge::method_table()[biases[3]->method].name, "linear");
  EXPECT_EQ(biases[3]->sources[0].begin, first + 2 * 4);
  EXPECT_EQ(biases[3]->sources[1].begin, first + 3 * 4);
  EXPECT_EQ(tensor_named(plan, "model.layers.0.mlp.gate.e_score_correction_bias").dtype, DType::kF32);
  expect_error([&] { workshop_.plan("base_model: $/grouped\ngate_mode: random\nexperts:\n  - source_model: $/shallow\n"); },
               ErrorCode::kInvalidConfig, {"5 experts cannot be shared out to the 2 routing groups", "multiple of 2"});
}

TEST_F(AdditionPlanner, RefusesWhatCannotBeAdded) {
  workshop_.write("narrow", {.ffn = 5});
  workshop_.write("wide", {.hidden = 8});
  workshop_.write("deep", {.num_layers = 3});
  workshop_.write("gelu", {.config = {{"hidden_act", "gelu"}}});
  const auto refused = [&](const std::string& experts, std::initializer_list<std::string> words, ErrorCode code) {
    expect_error([&] { workshop_.plan(added(experts)); }, code, words);
  };
  refused("  - source_model: $/narrow\n", {"merge.yml:4", "an FFN of 5 neurons", "have 6"}, ErrorCode::kInvalidInput);
  refused("  - source_model: $/wide\n", {"a hidden size of 8", "of 4"}, ErrorCode::kInvalidInput);
  refused("  - source_model: $/deep\n", {"has 3 layers", "has 2"}, ErrorCode::kInvalidInput);
  refused("  - source_model: $/gelu\n", {"hidden_act gelu", "silu"}, ErrorCode::kUnsupported);
  refused("  - source_model: $/other\n", {"is a mixture of 2 experts", "expert: N"}, ErrorCode::kInvalidConfig);
  refused("  - {source_model: $/dense, expert: 0}\n", {"is a dense model"}, ErrorCode::kInvalidConfig);
  refused("  - {source_model: $/other, expert: 2}\n", {"experts 0 to 1", "no expert 2"}, ErrorCode::kInvalidConfig);
  refused("  - {source_model: $/other, expert: [0, 1, 0]}\n", {"names 3 experts", "each of the 2 layers"}, ErrorCode::kInvalidConfig);
}

TEST_F(AdditionPlanner, RefusesWhatTheBaseDecides) {
  const std::string more =
      "gate_mode: random\nmoe_layers: [0]\narchitecture: qwen3\nrope: ntk\nshared_experts:\n  - source_model: $/dense\n";
  expect_error([&] { workshop_.plan(added("  - source_model: $/dense\n", more)); }, ErrorCode::kInvalidConfig,
               {"merge.yml:3", "'moe_layers'", "merge.yml:4", "'architecture'", "'rope'", "'shared_experts'"});
}

TEST_F(AdditionPlanner, EqualExpertsAreRefusedUnlessTheyAreToBeTrained) {
  const std::string experts =
      "  - {source_model: $/dense, positive_token_ids: [[1]]}\n  - {source_model: $/dense, positive_token_ids: [[2]]}\n";
  expect_error([&] { workshop_.plan(added(experts, "gate_mode: cheap_embed\n")); }, ErrorCode::kInvalidConfig,
               {"all new experts are the same"});
  PlanOptions options;
  options.allow_degenerate = true;
  EXPECT_EQ(tensor_named(workshop_.plan(added(experts, "gate_mode: cheap_embed\n"), options), kRouterName).shape, (Shape{5, 4}));
}

}  // namespace
}  // namespace moeweld::plan
