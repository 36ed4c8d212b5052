#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "moeweld/merge/expert_variation.h"
#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string expert_tensor_name(int layer, int expert, const std::string& matrix) {
  return "model.layers." + std::to_string(layer) + ".block_sparse_moe.experts." + std::to_string(expert) + "." + matrix + ".weight";
}
const std::string kRouterTensor = "model.layers.1.block_sparse_moe.gate.weight";

/// Byte in the file of a model's tensor.
std::uint64_t begin_of(const Workshop& workshop, const std::string& model, const std::string& tensor) {
  const auto storage = make_posix_storage();
  return formats::read_checkpoint(*storage, workshop.path(model)).find(tensor)->begin;
}

class Assembly : public ::testing::Test {
 protected:
  Assembly() {
    for (const char* name : {"a", "b", "base"}) workshop_.write(name, {});
  }
  MergePlan plan(const std::string& rest, const PlanOptions& options = {}) {
    return workshop_.plan("base_model: $/base\n" + rest, options);
  }
  void expect_refused(const std::string& rest, ErrorCode code, std::initializer_list<std::string> parts) {
    SCOPED_TRACE(rest);
    expect_error([&] { plan(rest); }, code, parts);
  }
  Workshop workshop_;
};

const std::string kTwoExperts = "experts:\n  - {source_model: $/a}\n  - {source_model: $/b}\ngate_mode: random\n";

TEST_F(Assembly, NeutralScalesCopyAndOthersDoNot) {
  const MergePlan plan = this->plan(
      "experts:\n  - {source_model: $/a, noise_scale: 0, residual_scale: 1}\n"
      "  - {source_model: $/b, noise_scale: 0.25, residual_scale: 3}\ngate_mode: random\n");
  for (const char* matrix : {"w1", "w2", "w3"}) {
    EXPECT_EQ(operation_named(plan, expert_tensor_name(0, 0, matrix)).kind, Operation::Kind::kCopy);
    EXPECT_EQ(model_parameter(plan, expert_tensor_name(0, 1, matrix), 0, "noise_scale"), 0.25);
    EXPECT_EQ(model_parameter(plan, expert_tensor_name(0, 1, matrix), 0, "scale"), matrix == std::string("w2") ? 3 : 1) << matrix;
  }
  // Every tensor has noise of its own.
  std::set<std::uint64_t> streams;
  for (const Operation& operation : plan.operations) {
    if (operation.kind == Operation::Kind::kMerge) streams.insert(operation.task.tensor_key);
  }
  EXPECT_EQ(streams.size(), 6U);
}

TEST_F(Assembly, AResidualScaleAloneIsAFactorOfTheDownMatrix) {
  const MergePlan plan = this->plan("experts:\n  - {source_model: $/a, residual_scale: 0.5}\n  - {source_model: $/b}\ngate_mode: random\n");
  const Operation& down = operation_named(plan, expert_tensor_name(0, 0, "w2"));
  EXPECT_EQ(merge::method_table()[down.method].name, "passthrough");
  EXPECT_EQ(model_parameter(plan, expert_tensor_name(0, 0, "w2"), 0, "scale"), 0.5);
  EXPECT_EQ(operation_named(plan, expert_tensor_name(0, 0, "w1")).kind, Operation::Kind::kCopy);
}

TEST_F(Assembly, SparseUpcyclingCopiesTheBase) {
  const MergePlan plan = this->plan("recipe: sparse_upcycle\ncopies: 4\n");
  for (int expert = 0; expert < 4; ++expert) {
    EXPECT_THAT(source_names(plan, expert_tensor_name(1, expert, "w1")), ElementsAre("base:model.layers.1.mlp.gate_proj.weight"));
    EXPECT_EQ(operation_named(plan, expert_tensor_name(1, expert, "w2")).kind, Operation::Kind::kCopy);
  }
  const Operation& router = operation_named(plan, kRouterTensor);
  EXPECT_EQ(router.kind, Operation::Kind::kRandomFill);
  EXPECT_EQ(router.task.shape, (Shape{4, 4}));
  EXPECT_EQ(router.repeat_rows, 1U);
  EXPECT_EQ(output_config_of(plan)["num_local_experts"], 4);
  EXPECT_THAT(plan.warnings, Not(Contains(HasSubstr("the same model"))));
}

// Expert j·G + i is shard i of copy j: rows of gate and up, columns of down; each router row stands G times.
TEST_F(Assembly, FineGrainedExpertsAreShardsOfCopies) {
  const MergePlan plan = this->plan("recipe: fine_grained\ncopies: 2\nshards: 3\nexperts_per_token: 3\n");
  const std::uint64_t gate_begin = begin_of(workshop_, "base", "model.layers.1.mlp.gate_proj.weight");
  const std::uint64_t down_begin = begin_of(workshop_, "base", "model.layers.1.mlp.down_proj.weight");
  for (int copy = 0; copy < 2; ++copy) {
    for (std::uint64_t shard = 0; shard < 3; ++shard) {
      const int expert = copy * 3 + static_cast<int>(shard);
      const Operation& gate = operation_named(plan, expert_tensor_name(1, expert, "w1"));
      EXPECT_EQ(gate.task.shape, (Shape{2, 4}));
      EXPECT_EQ(gate.sources[0].kind, SourceView::Kind::kBytes);
      EXPECT_EQ(gate.sources[0].begin, gate_begin + shard * 2 * 4 * 2);  // 2 rows of 4 BF16
      const Operation& down = operation_named(plan, expert_tensor_name(1, expert, "w2"));
      EXPECT_EQ(down.task.shape, (Shape{4, 2}));
      EXPECT_EQ(model_parameter(plan, down.name, 0, "scale"), 3);  // weights of the chosen add up to 1: factor G
      // Columns 0 and 1 are the start of the matrix's rows; of others a slice of columns.
      const SourceView& view = down.sources[0];
      ASSERT_EQ(view.kind, SourceView::Kind::kColumnSlice);
      EXPECT_EQ(view.first, 2 * shard);
      EXPECT_EQ(view.columns, 2U);
      EXPECT_EQ(view.children.at(0).begin, down_begin);
    }
  }
  const Operation& router = operation_named(plan, kRouterTensor);
  EXPECT_EQ(router.task.shape, (Shape{6, 4}));
  EXPECT_EQ(router.repeat_rows, 3U);
  EXPECT_EQ(output_config_of(plan)["intermediate_size"], 2);
  EXPECT_EQ(output_config_of(plan)["num_local_experts"], 6);
  EXPECT_THAT(plan.warnings, Not(Contains(HasSubstr("no multiple"))));
  EXPECT_THAT(this->plan("recipe: fine_grained\ncopies: 2\nshards: 3\n").warnings, Contains(HasSubstr("no multiple of the 3 shards")));
}

TEST_F(Assembly, ThePublishedScalingIsACubeRootOfEachMatrix) {
  const MergePlan plan = this->plan("recipe: fine_grained\ncopies: 2\nshards: 2\npublished_scaling: true\n");
  for (const char* matrix : {"w1", "w2", "w3"}) {
    EXPECT_DOUBLE_EQ(model_parameter(plan, expert_tensor_name(0, 3, matrix), 0, "scale"), std::cbrt(2.0)) << matrix;
  }
  EXPECT_THAT(plan.warnings, Contains(HasSubstr("published_scaling")));
}

TEST_F(Assembly, FineGrainedTakesListedExpertsAsCopies) {
  const MergePlan plan = this->plan("recipe: fine_grained\nshards: 2\n" + kTwoExperts);
  const std::uint64_t gate_begin = begin_of(workshop_, "b", "model.layers.0.mlp.gate_proj.weight");
  EXPECT_EQ(operation_named(plan, expert_tensor_name(0, 3, "w1")).sources[0].begin, gate_begin + 3 * 4 * 2);
}

TEST_F(Assembly, RefusesShardsThatDoNotDivideTheFfn) {
  expect_refused("recipe: fine_grained\ncopies: 2\nshards: 4\n", ErrorCode::kInvalidConfig, {"merge.yml:4", "6 neurons", "4 equal shards"});
}

TEST_F(Assembly, DropUpcyclingRedrawsTheSameNeuronsInAnExpertsMatrices) {
  const MergePlan plan = this->plan("recipe: drop_upcycle\ncopies: 2\nratio: 0.25\n");
  std::set<double> sets;
  for (int layer = 0; layer < 2; ++layer) {
    for (int expert = 0; expert < 2; ++expert) {
      const double neuron_set = shared_parameter(plan, expert_tensor_name(layer, expert, "w1"), "neuron_set");
      sets.insert(neuron_set);
      for (const char* matrix : {"w1", "w2", "w3"}) {
        const std::string name = expert_tensor_name(layer, expert, matrix);
        EXPECT_EQ(shared_parameter(plan, name, "neuron_set"), neuron_set);
        EXPECT_EQ(shared_parameter(plan, name, "redrawn_ratio"), 0.25);
        EXPECT_EQ(shared_parameter(plan, name, "neuron_axis"), matrix == std::string("w2") ? 1 : 0);
      }
    }
  }
  EXPECT_EQ(sets.size(), 4U);
}

TEST_F(Assembly, BtxMergesEverythingButTheFfnOverTheExperts) {
  const MergePlan plan = this->plan("recipe: btx\n" + kTwoExperts);
  const std::string query = "model.layers.1.self_attn.q_proj.weight";
  EXPECT_THAT(source_names(plan, query), ElementsAre("a:" + query, "b:" + query));
  EXPECT_EQ(merge::method_table()[operation_named(plan, query).method].name, "linear");
  EXPECT_EQ(model_parameter(plan, query, 0, "weight"), model_parameter(plan, query, 1, "weight"));
  EXPECT_THAT(source_names(plan, "lm_head.weight"), ElementsAre("a:lm_head.weight", "b:lm_head.weight"));
  EXPECT_THAT(source_names(plan, expert_tensor_name(1, 1, "w1")), ElementsAre("b:model.layers.1.mlp.gate_proj.weight"));
  EXPECT_FALSE(has_operation(plan, "model.layers.1.mlp.gate_proj.weight"));
  // The base gives config.json and tokenizer alone.
  for (const DroppedTensor& tensor : plan.dropped) EXPECT_EQ(tensor.model, workshop_.path("base")) << tensor.name;
}

TEST_F(Assembly, BtxTakesAnyMethodWithItsParameters) {
  const MergePlan plan =
      this->plan("recipe: btx\nattention_merge: {merge_method: task_arithmetic, parameters: {weight: 0.3}}\n" + kTwoExperts);
  const std::string norm = "model.layers.0.input_layernorm.weight";
  EXPECT_THAT(source_names(plan, norm), ElementsAre("a:" + norm, "b:" + norm, "base:" + norm));
  EXPECT_EQ(operation_named(plan, norm).task.base_index, 2);
  EXPECT_EQ(model_parameter(plan, norm, 1, "weight"), 0.3);
}

TEST_F(Assembly, BtxNeedsModelsThatAreAlike) {
  workshop_.write("b", {.vocabulary = 12});
  expect_refused("recipe: btx\n" + kTwoExperts, ErrorCode::kInvalidInput, {"[10, 4]", "[12, 4]", "model.embed_tokens.weight"});
  EXPECT_THAT(plan(kTwoExperts).notes, Contains(HasSubstr("a vocabulary of [12, 4], the base of [10, 4]")));
}

TEST_F(Assembly, BtxRefusesAMethodsMissingParameterWithItsLine) {
  expect_refused("recipe: btx\nattention_merge: slerp\n" + kTwoExperts, ErrorCode::kInvalidConfig, {"merge.yml:3", "slerp"});
}

TEST_F(Assembly, RefusesLayersBeyondTheLastOne) {
  expect_refused("moe_layers: [0, 2]\n" + kTwoExperts, ErrorCode::kInvalidConfig, {"merge.yml:2", "layer 2", "layers 0 to 1"});
  expect_refused("moe_layers: {every: 2, first: 5}\n" + kTwoExperts, ErrorCode::kInvalidConfig, {"merge.yml:2", "no layer with experts"});
}

TEST_F(Assembly, AMixtralHasExpertsInEveryLayer) {
  expect_refused("moe_layers: [1]\n" + kTwoExperts, ErrorCode::kUnsupported, {"merge.yml:2", "All layers of a MixtralForCausalLM"});
  EXPECT_NO_THROW(plan("moe_layers: {every: 1}\n" + kTwoExperts));
}

TEST_F(Assembly, RefusesSourcesWithTheirLineAndReason) {
  workshop_.write("mixture", {.num_experts = 2});
  expect_refused("experts:\n  - {source_model: $/mixture}\n  - {source_model: $/a}\ngate_mode: random\n", ErrorCode::kInvalidConfig,
                 {"merge.yml:3", "MixtralForCausalLM", "dense Llama, Mistral, Qwen2 or Qwen3"});
  workshop_.write("mistral", {.architecture = "MistralForCausalLM"});
  const std::string mixed = "experts:\n  - {source_model: $/mistral}\n  - {source_model: $/a}\ngate_mode: random\n";
  expect_refused(mixed, ErrorCode::kInvalidConfig, {"LlamaForCausalLM", "MistralForCausalLM", "--allow-crimes"});
  PlanOptions options;
  options.allow_crimes = true;
  EXPECT_NO_THROW(plan(mixed, options));
}

TEST_F(Assembly, RefusesExpertsThatTheMixtureWouldChange) {
  workshop_.write("b", {.config = {{"hidden_act", "gelu"}}});
  expect_refused(kTwoExperts, ErrorCode::kUnsupported, {"merge.yml:4", "gelu", "silu"});
  workshop_.write("b", {.extra = {{"model.layers.0.mlp.up_proj.bias", DType::kBF16, {6}}}});
  expect_refused(kTwoExperts, ErrorCode::kUnsupported, {"merge.yml:4", "biases", "model.layers.0.mlp.up_proj.bias"});
  workshop_.write("b", {.hidden = 8});
  expect_refused(kTwoExperts, ErrorCode::kInvalidInput, {"merge.yml:4", "hidden size of 8", "of 4"});
}

// A recipe that starts from copies is given equal experts; one that merges trained models is not.
TEST_F(Assembly, EqualExpertsAreMeantWhereARecipeCopies) {
  const std::string same = "experts:\n  - {source_model: $/a}\n  - {source_model: $/a}\ngate_mode: random\n";
  EXPECT_THAT(plan("recipe: drop_upcycle\n" + same).warnings, Not(Contains(HasSubstr("the same model"))));
  expect_refused("recipe: btx\n" + same, ErrorCode::kInvalidConfig, {"merge.yml:5", "there twice"});
}

TEST_F(Assembly, RefusesIdenticalPromptsUnlessAllowed) {
  const std::string same =
      "experts:\n  - {source_model: $/a, positive_token_ids: [[1]]}\n  - {source_model: $/b, positive_token_ids: [[1]]}\n"
      "gate_mode: cheap_embed\n";
  for (const char* recipe : {"", "recipe: btx\n"}) {
    expect_refused(recipe + same, ErrorCode::kInvalidConfig, {"same prompts", "--allow-degenerate"});
    EXPECT_NO_THROW(plan(recipe + same, {.allow_degenerate = true}));
  }
}

TEST_F(Assembly, WarnsOfANumberThatIsNoPowerOfTwo) {
  EXPECT_THAT(plan("recipe: sparse_upcycle\ncopies: 3\n").warnings, Contains(HasSubstr("3 experts are no power of two")));
  for (const std::string& warning : plan("recipe: sparse_upcycle\ncopies: 4\n").warnings) EXPECT_THAT(warning, Not(HasSubstr("power")));
}

TEST_F(Assembly, SaysWhatComesFromWhere) {
  const MergePlan plan = this->plan("recipe: fine_grained\ncopies: 2\nshards: 2\n");
  EXPECT_THAT(plan.composition, Contains("everything but the experts' FFN: " + workshop_.path("base")));
  EXPECT_THAT(plan.composition, Contains(HasSubstr("experts 0 to 3: FFN of " + workshop_.path("base") + ", in 2 shards, down times 2.0")));
  EXPECT_THAT(plan.composition, Contains("router rows: random, to be trained"));
  const MergePlan prompted = this->plan(
      "experts:\n  - {source_model: $/a, positive_token_ids: [[1]]}\n  - {source_model: $/b, positive_token_ids: [[2]]}\n"
      "gate_mode: cheap_embed\n");
  EXPECT_THAT(prompted.composition, Contains("router rows: cheap_embed, from the experts' prompts and " + workshop_.path("base")));
}

}  // namespace
}  // namespace moeweld::plan
