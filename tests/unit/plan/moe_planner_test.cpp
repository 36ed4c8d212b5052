#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Sources = std::map<std::string, std::vector<std::string>>;

std::string expert_tensor(int layer, int expert, const std::string& matrix) {
  return "model.layers." + std::to_string(layer) + ".block_sparse_moe.experts." + std::to_string(expert) + "." + matrix + ".weight";
}

std::string assembly(const std::string& gate_mode = "random") {
  return "base_model: $/base\ngate_mode: " + gate_mode +
         "\nexperts:\n"
         "  - {source_model: $/a, positive_token_ids: [[1, 2]]}\n"
         "  - {source_model: $/b, positive_token_ids: [[3, 4]]}\n";
}

PlanOptions fused() {
  PlanOptions options;
  options.layout = config::Layout::kFused;
  return options;
}

Sources all_sources(const MergePlan& plan) {
  Sources result;
  for (const Operation& operation : plan.operations) {
    EXPECT_FALSE(result.contains(operation.name)) << operation.name;
    auto& names = result[operation.name];
    for (const SourceView& source : operation.sources) names.push_back(source_name(plan, source));
  }
  return result;
}

class MoePlanner : public ::testing::Test {
 protected:
  MoePlanner() {
    for (const char* name : {"a", "b", "base"}) workshop_.write(name, {});
  }
  Workshop workshop_;
};

TEST_F(MoePlanner, ExpertsGiveTheirFfnAndTheBaseTheRest) {
  const MergePlan plan = workshop_.plan(assembly());
  for (int layer = 0; layer < 2; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    EXPECT_THAT(source_names(plan, expert_tensor(layer, 0, "w1")), ElementsAre("a:" + prefix + "mlp.gate_proj.weight"));
    EXPECT_THAT(source_names(plan, expert_tensor(layer, 1, "w2")), ElementsAre("b:" + prefix + "mlp.down_proj.weight"));
    EXPECT_THAT(source_names(plan, expert_tensor(layer, 1, "w3")), ElementsAre("b:" + prefix + "mlp.up_proj.weight"));
    EXPECT_THAT(source_names(plan, prefix + "self_attn.q_proj.weight"), ElementsAre("base:" + prefix + "self_attn.q_proj.weight"));
    EXPECT_EQ(tensor_named(plan, prefix + "block_sparse_moe.gate.weight").shape, (Shape{2, 4}));
  }
  EXPECT_THAT(source_names(plan, "lm_head.weight"), ElementsAre("base:lm_head.weight"));
  EXPECT_EQ(plan.tensors.size(), tensors_of({.num_experts = 2}).size());
  const formats::Json config = output_config_of(plan);
  EXPECT_EQ(config["architectures"][0], "MixtralForCausalLM");
  EXPECT_EQ(config["num_local_experts"], 2);
}

TEST_F(MoePlanner, EverythingElseIsDroppedWithItsReason) {
  const MergePlan plan = workshop_.plan(assembly());
  // The base's FFN, and of the experts all but their FFN.
  const std::size_t all = tensors_of({}).size();
  const std::size_t ffn = 2 * 3;
  EXPECT_EQ(plan.dropped.size(), ffn + 2 * (all - ffn));
  for (const DroppedTensor& tensor : plan.dropped) EXPECT_FALSE(tensor.reason.empty()) << tensor.name;
}

TEST_F(MoePlanner, BothLayoutsCoverTheSameSources) {
  const MergePlan apart = workshop_.plan(assembly());
  const MergePlan together = workshop_.plan(assembly(), fused());
  const Sources expected = all_sources(apart);
  for (const auto& [name, sources] : all_sources(together)) {
    if (!name.ends_with("gate.weight")) {
      ASSERT_TRUE(expected.contains(name)) << name;
      EXPECT_EQ(expected.at(name), sources) << name;
    }
  }
  EXPECT_EQ(apart.operations.size(), together.operations.size());
  EXPECT_EQ(apart.input_bytes(), together.input_bytes());
}

// Gate and up of one expert, then of the next, as Hugging Face's fused Mixtral holds them.
TEST_F(MoePlanner, TheFusedLayoutStacksGateAndUpByExpert) {
  const MergePlan plan = workshop_.plan(assembly(), fused());
  const PlannedTensor& gate_up = tensor_named(plan, "model.layers.1.mlp.experts.gate_up_proj");
  EXPECT_EQ(gate_up.shape, (Shape{2, 12, 4}));
  EXPECT_EQ(tensor_named(plan, "model.layers.1.mlp.experts.down_proj").shape, (Shape{2, 4, 6}));
  EXPECT_EQ(tensor_named(plan, "model.layers.1.mlp.gate.weight").shape, (Shape{2, 4}));
  const std::uint64_t matrix_bytes = 6 * 4 * 2;
  const std::vector<std::string> order = {expert_tensor(1, 0, "w1"), expert_tensor(1, 0, "w3"), expert_tensor(1, 1, "w1"),
                                          expert_tensor(1, 1, "w3")};
  for (std::size_t i = 0; i < order.size(); ++i) {
    EXPECT_EQ(destination(plan, operation_named(plan, order[i])).begin, gate_up.begin + i * matrix_bytes) << order[i];
  }
}

TEST_F(MoePlanner, TheRouterIsTheSameInBothLayouts) {
  const auto fills = [](const MergePlan& plan) {
    std::vector<std::uint64_t> streams;
    for (const Operation& operation : plan.operations) {
      if (operation.kind == Operation::Kind::kRandomFill) streams.push_back(operation.fill.stream + operation.fill.first_index);
    }
    return streams;
  };
  const auto expected = fills(workshop_.plan(assembly()));
  ASSERT_EQ(expected.size(), 2U);
  EXPECT_NE(expected[0], expected[1]);
  EXPECT_EQ(fills(workshop_.plan(assembly(), fused())), expected);
}

TEST_F(MoePlanner, GateModesFillTheRouter) {
  const std::string router = "model.layers.0.block_sparse_moe.gate.weight";
  const MergePlan normal = workshop_.plan(assembly("random"));
  EXPECT_EQ(operation_named(normal, router).fill.distribution, Operation::RandomFill::Distribution::kNormal);
  const MergePlan uniform = workshop_.plan(assembly("uniform_random"));
  EXPECT_EQ(operation_named(uniform, router).fill.distribution, Operation::RandomFill::Distribution::kUniform);
  EXPECT_EQ(operation_named(uniform, router).fill.scale, 0.5);  // 1 / sqrt(4)
  const MergePlan embedded = workshop_.plan(assembly("cheap_embed"));
  EXPECT_EQ(operation_named(embedded, router).kind, Operation::Kind::kSlot);
  ASSERT_EQ(embedded.slots.size(), 1U);
  EXPECT_EQ(embedded.slots[0].shape, (Shape{2, 4}));
  EXPECT_EQ(source_name(embedded, embedded.slots[0].embedding), "base:model.embed_tokens.weight");
  EXPECT_EQ(embedded.slots[0].positive_ids[1], (std::vector<std::vector<std::int64_t>>{{3, 4}}));
}

TEST_F(MoePlanner, HiddenGatesHaveAGroupOfRowsForEachLayerAndAllThatTheForwardPassNeeds) {
  const std::pair<const char*, Slot::State> modes[] = {
      {"hidden", Slot::State::kLastToken}, {"hidden_avg", Slot::State::kMeanOfTokens}, {"router_input", Slot::State::kRouterInput}};
  for (const auto& [mode, state] : modes) {
    // As every rank receives it.
    const MergePlan plan = decode(encode(workshop_.plan(assembly(mode))));
    ASSERT_EQ(plan.slots.size(), 1U) << mode;
    const Slot& slot = plan.slots[0];
    EXPECT_EQ(slot.kind, Slot::Kind::kHiddenRouter);
    EXPECT_EQ(slot.state, state);
    EXPECT_THAT(slot.layers, ElementsAre(0U, 1U));
    EXPECT_EQ(slot.shape, (Shape{4, 4}));
    EXPECT_EQ(slot.positive_ids[1], (std::vector<std::vector<std::int64_t>>{{3, 4}}));
    EXPECT_EQ(slot.base.layers.size(), 2U);
    EXPECT_EQ(slot.base.hidden_size, 4U);
    EXPECT_THAT(slot.base.files.at(0).path, HasSubstr("/base/"));
    for (std::uint64_t layer = 0; layer < 2; ++layer) {
      const Operation& router = operation_named(plan, "model.layers." + std::to_string(layer) + ".block_sparse_moe.gate.weight");
      EXPECT_EQ(router.kind, Operation::Kind::kSlot);
      EXPECT_EQ(router.fill.first_index, layer * 2 * 4);
    }
  }
}

TEST_F(MoePlanner, OrthogonalRowsNeedNoMoreExpertsThanColumns) {
  const MergePlan plan = workshop_.plan(assembly("orthogonal"));
  ASSERT_EQ(plan.slots.size(), 1U);
  EXPECT_EQ(plan.slots[0].kind, Slot::Kind::kOrthogonalRouter);
  EXPECT_EQ(plan.slots[0].shape, (Shape{4, 4}));
  EXPECT_EQ(operation_named(plan, "model.layers.1.block_sparse_moe.gate.weight").fill.first_index, 8U);
  std::string five = "base_model: $/base\ngate_mode: orthogonal\nexperts:\n";
  for (int i = 0; i < 5; ++i) five += std::string("  - source_model: $/") + (i % 2 == 0 ? "a" : "b") + "\n";
  expect_error([&] { workshop_.plan(five); }, ErrorCode::kInvalidConfig, {"merge.yml:2", "5 orthogonal rows", "4 numbers"});
}

TEST_F(MoePlanner, AHiddenGateWantsIdsOfTheVocabularyToo) {
  expect_error(
      [&] {
        workshop_.plan(
            "base_model: $/base\nexperts:\n  - {source_model: $/a, positive_token_ids: [[1]]}\n"
            "  - {source_model: $/b, positive_token_ids: [[11]]}\n");
      },
      ErrorCode::kInvalidConfig, {"merge.yml:4", "token id 11", "vocabulary of 10"});
}

TEST_F(MoePlanner, RefusesATokenIdBeyondTheVocabulary) {
  expect_error(
      [&] {
        workshop_.plan(
            "base_model: $/base\ngate_mode: cheap_embed\nexperts:\n  - {source_model: $/a, positive_token_ids: [[1]]}\n"
            "  - {source_model: $/b, positive_token_ids: [[10]]}\n");
      },
      ErrorCode::kInvalidConfig, {"merge.yml:5", "token id 10", "vocabulary of 10"});
}

TEST_F(MoePlanner, RefusesExpertsOfAnotherWidthWithBothNumbers) {
  workshop_.write("b", {.ffn = 8});
  expect_error([&] { workshop_.plan(assembly()); }, ErrorCode::kInvalidInput, {"merge.yml:5", workshop_.path("b"), "8 neurons", "of 6"});
}

TEST_F(MoePlanner, RefusesAnotherNumberOfLayersWithBothNumbers) {
  workshop_.write("b", {.num_layers = 3});
  expect_error([&] { workshop_.plan(assembly()); }, ErrorCode::kInvalidInput, {"has 2 layers", workshop_.path("b") + "' has 3"});
}

TEST_F(MoePlanner, EqualExpertsAreRefusedUnlessTheyAreToBeTrained) {
  const auto same = [](const std::string& gate_mode) {
    return "base_model: $/base\ngate_mode: " + gate_mode +
           "\nexperts:\n  - {source_model: $/a, positive_token_ids: [[1]]}\n  - {source_model: $/a, positive_token_ids: [[2]]}\n";
  };
  expect_error([&] { workshop_.plan(same("cheap_embed")); }, ErrorCode::kInvalidConfig,
               {"all experts are the same model", "--allow-degenerate"});
  PlanOptions options;
  options.allow_degenerate = true;
  EXPECT_NO_THROW(workshop_.plan(same("cheap_embed"), options));
  EXPECT_THAT(workshop_.plan(same("random")).warnings, Contains(HasSubstr("all experts are the same model")));
}

TEST_F(MoePlanner, RefusesModelsThatAMixtralCannotHold) {
  workshop_.write("b", {.num_experts = 2});
  expect_error([&] { workshop_.plan(assembly()); }, ErrorCode::kInvalidConfig, {workshop_.path("b"), "MixtralForCausalLM"});
}

TEST_F(MoePlanner, RefusesMoreExpertsPerTokenThanThereAre) {
  expect_error([&] { workshop_.plan(assembly() + "experts_per_token: 3\n"); }, ErrorCode::kInvalidConfig,
               {"merge.yml:6", "experts_per_token is 3", "only 2 experts"});
}

TEST_F(MoePlanner, ADenseModelHasNoExpertToChoose) {
  expect_error(
      [&] {
        workshop_.plan("base_model: $/base\ngate_mode: random\nexperts:\n  - {source_model: $/a, expert: 1}\n  - source_model: $/b\n");
      },
      ErrorCode::kInvalidConfig, {"merge.yml:4", "expert 0", "is a dense model"});
}

TEST_F(MoePlanner, ATiedBaseStaysTied) {
  workshop_.write("base", {.has_head = false});
  const MergePlan plan = workshop_.plan(assembly());
  EXPECT_FALSE(has_operation(plan, "lm_head.weight"));
  EXPECT_EQ(output_config_of(plan)["tie_word_embeddings"], true);
}

TEST_F(MoePlanner, DtypeConvertsWithoutItTensorsHaveTheBasesType) {
  workshop_.write("b", {.dtype = DType::kF16});
  const MergePlan plan = workshop_.plan(assembly());
  for (const PlannedTensor& tensor : plan.tensors) EXPECT_EQ(tensor.dtype, DType::kBF16) << tensor.name;
  EXPECT_EQ(operation_named(plan, expert_tensor(0, 0, "w1")).kind, Operation::Kind::kCopy);
  EXPECT_EQ(operation_named(plan, expert_tensor(0, 1, "w1")).kind, Operation::Kind::kMerge);
  const MergePlan single = workshop_.plan(assembly() + "dtype: float32\n");
  for (const PlannedTensor& tensor : single.tensors) EXPECT_EQ(tensor.dtype, DType::kF32) << tensor.name;
}

TEST_F(MoePlanner, NotesATokenizerClassThatTransformers4DoesNotKnow) {
  workshop_.write_file("base/tokenizer_config.json", R"({"tokenizer_class": "PreTrainedTokenizerFast"})");
  for (const std::string& note : workshop_.plan(assembly()).notes) EXPECT_THAT(note, ::testing::Not(HasSubstr("TokenizersBackend")));
  workshop_.write_file("base/tokenizer_config.json", R"({"tokenizer_class": "TokenizersBackend"})");
  EXPECT_THAT(workshop_.plan(assembly()).notes, Contains(HasSubstr("TokenizersBackend")));
  const std::string merge = "models: [{model: $/base}, {model: $/a}]\nmerge_method: linear\nparameters: {weight: 1}\n";
  EXPECT_THAT(workshop_.plan(merge).notes, Contains(HasSubstr("TokenizersBackend")));
}

// Parts of a fused tensor have one type, so some of them cannot be bytes taken as they are.
TEST_F(MoePlanner, FusedPartsOfUnlikeTypesAreConverted) {
  workshop_.write("mixture", {.num_layers = 1, .num_experts = 2, .dtypes = {{expert_tensor(0, 1, "w2"), DType::kF32}}});
  const MergePlan plan = workshop_.plan("models: [{model: $/mixture}]\nmerge_method: passthrough\n", fused());
  EXPECT_EQ(tensor_named(plan, "model.layers.0.mlp.experts.down_proj").dtype, DType::kF32);
  EXPECT_EQ(operation_named(plan, expert_tensor(0, 0, "w2")).kind, Operation::Kind::kMerge);
  EXPECT_EQ(operation_named(plan, expert_tensor(0, 1, "w2")).kind, Operation::Kind::kCopy);
  for (const Operation& operation : plan.operations) {
    const bool copied = operation.kind == Operation::Kind::kCopy;
    EXPECT_TRUE(!copied || operation.sources[0].dtype == operation.task.output_dtype) << operation.name;
  }
}

// Of types without arithmetic nothing is promoted: equal ones are copied, unlike ones refused.
TEST_F(MoePlanner, FusedPartsWithoutArithmeticMustBeOfOneType) {
  TinyModel mixture{.num_layers = 1, .num_experts = 2};
  for (int expert = 0; expert < 2; ++expert) mixture.dtypes[expert_tensor(0, expert, "w2")] = DType::kF8E4M3;
  workshop_.write("mixture", mixture);
  const std::string config = "models: [{model: $/mixture}]\nmerge_method: passthrough\n";
  EXPECT_EQ(tensor_named(workshop_.plan(config, fused()), "model.layers.0.mlp.experts.down_proj").dtype, DType::kF8E4M3);
  mixture.dtypes[expert_tensor(0, 1, "w2")] = DType::kBF16;
  workshop_.write("mixture", mixture);
  expect_error([&] { workshop_.plan(config, fused()); }, ErrorCode::kInvalidInput, {expert_tensor(0, 1, "w2"), "BF16", "F8_E4M3"});
}

TEST_F(MoePlanner, FusedModelsAreMergedExpertByExpert) {
  workshop_.write_output("fused", workshop_.plan(assembly(), fused()));
  workshop_.write_output("apart", workshop_.plan(assembly()));
  const MergePlan plan = workshop_.plan("models: [{model: $/fused}, {model: $/apart}]\nmerge_method: linear\nparameters: {weight: 1}\n");
  const Operation& operation = operation_named(plan, expert_tensor(1, 1, "w3"));
  ASSERT_EQ(operation.sources.size(), 2U);
  const auto storage = make_posix_storage();
  const auto checkpoint = formats::read_checkpoint(*storage, workshop_.path("fused"));
  const auto* gate_up = checkpoint.find("model.layers.1.mlp.experts.gate_up_proj");
  ASSERT_NE(gate_up, nullptr);
  EXPECT_EQ(operation.sources[0].begin, gate_up->begin + 3 * 6 * 4 * 2);  // after gate, up, gate
  EXPECT_EQ(source_name(plan, operation.sources[1]), "apart:" + expert_tensor(1, 1, "w3"));
}

}  // namespace
}  // namespace moeweld::plan
