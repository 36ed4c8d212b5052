#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const char* const kEmbeddingName = "model.embed_tokens.weight";
const char* const kHead = "lm_head.weight";
const char* const kNorm = "model.norm.weight";
const char* const kLinear = "models: [{model: $/a}, {model: $/b}]\nmerge_method: linear\nparameters: {weight: 1}\n";
const char* const kStack =
    "slices:\n"
    "  - sources: [{model: $/a, layer_range: [0, 2]}]\n"
    "  - sources: [{model: $/b, layer_range: [1, 3]}]\n"
    "merge_method: passthrough\n";

std::string layer_tensor(int layer, const std::string& rest) { return "model.layers." + std::to_string(layer) + "." + rest; }

/// Every tensor of every model is a source or dropped, and none is both.
void expect_conservation(const MergePlan& plan) {
  const auto storage = make_posix_storage();
  std::multiset<std::string> used;
  for (const Operation& operation : plan.operations) {
    for (const SourceView& source : operation.sources) used.insert(source_name(plan, source));
  }
  std::multiset<std::string> dropped;
  for (const DroppedTensor& tensor : plan.dropped) {
    EXPECT_FALSE(tensor.reason.empty()) << tensor.name;
    dropped.insert(std::filesystem::path(tensor.model).filename().string() + ":" + tensor.name);
  }
  for (const PlannedModel& model : plan.models) {
    for (const auto& tensor : formats::read_checkpoint(*storage, model.directory).tensors) {
      const std::string name = std::filesystem::path(model.directory).filename().string() + ":" + tensor.name;
      EXPECT_EQ(dropped.count(name), used.contains(name) ? 0U : 1U) << name;
    }
  }
}

std::string drop_reason(const MergePlan& plan, const std::string& model, const std::string& name) {
  for (const DroppedTensor& tensor : plan.dropped) {
    if (tensor.model.ends_with("/" + model) && tensor.name == name) return tensor.reason;
  }
  return "not dropped";
}

TEST(MergePlanner, TakesTheSameTensorOfEachModelInTheOrderOfTheConfiguration) {
  Workshop workshop;
  workshop.write("a", {});
  workshop.write("b", {});
  const MergePlan plan = workshop.plan(kLinear);
  EXPECT_EQ(plan.operations.size(), tensors_of({}).size());
  for (const auto& tensor : tensors_of({}))
    EXPECT_THAT(source_names(plan, tensor.name), ElementsAre("a:" + tensor.name, "b:" + tensor.name));
  expect_conservation(plan);
}

TEST(MergePlanner, ABaseThatModelsDoNotListIsAddedToThem) {
  Workshop workshop;
  for (const char* name : {"a", "b", "base"}) workshop.write(name, {});
  const MergePlan plan = workshop.plan(
      "models: [{model: $/a}, {model: $/b}]\nbase_model: $/base\nmerge_method: ties\nparameters: {weight: 1, density: 0.5}\n");
  EXPECT_THAT(source_names(plan, kNorm), ElementsAre("a:model.norm.weight", "b:model.norm.weight", "base:model.norm.weight"));
  EXPECT_EQ(operation_named(plan, kNorm).task.base_index, 2);
  EXPECT_EQ(model_parameter(plan, kNorm, 0, "density"), 0.5);
  EXPECT_TRUE(std::isnan(model_parameter(plan, kNorm, 2, "density")));
}

TEST(MergePlanner, AListedBaseIsTakenWhereItStands) {
  Workshop workshop;
  for (const char* name : {"a", "base"}) workshop.write(name, {});
  const MergePlan plan =
      workshop.plan("models: [{model: $/base}, {model: $/a}]\nbase_model: $/base\nmerge_method: slerp\nparameters: {t: 0.25}\n");
  EXPECT_THAT(source_names(plan, kNorm), ElementsAre("base:model.norm.weight", "a:model.norm.weight"));
  EXPECT_EQ(operation_named(plan, kNorm).task.base_index, 0);
}

TEST(MergePlanner, LinearAsksAnAddedBaseForItsWeight) {
  Workshop workshop;
  for (const char* name : {"a", "b", "base"}) workshop.write(name, {});
  expect_error(
      [&] {
        workshop.plan(
            "models:\n  - {model: $/a, parameters: {weight: 1}}\n  - {model: $/b, parameters: {weight: 1}}\nbase_model: "
            "$/base\nmerge_method: linear\n");
      },
      ErrorCode::kInvalidConfig, {"merge.yml:4", "'weight'", workshop.path("base"), "'linear'"});
}

TEST(MergePlanner, AMissingSharedParameterIsNamedOnce) {
  Workshop workshop;
  for (const char* name : {"a", "b"}) workshop.write(name, {});
  try {
    workshop.plan("models: [{model: $/a}, {model: $/b}]\nbase_model: $/a\nmerge_method: slerp\n");
    FAIL();
  } catch (const Error& error) {
    ASSERT_EQ(error.problems().size(), 1U) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("'t'"));
    EXPECT_THAT(error.what(), HasSubstr("merge.yml:3"));
    EXPECT_THAT(error.what(), HasSubstr("20 more tensors"));
  }
}

TEST(MergePlanner, StacksModelsOfUnequalDepth) {
  Workshop workshop;
  workshop.write("a", {});
  workshop.write("b", {.num_layers = 3});
  const MergePlan plan = workshop.plan(kStack);
  const std::string query = "self_attn.q_proj.weight";
  EXPECT_THAT(source_names(plan, layer_tensor(0, query)), ElementsAre("a:" + layer_tensor(0, query)));
  EXPECT_THAT(source_names(plan, layer_tensor(1, query)), ElementsAre("a:" + layer_tensor(1, query)));
  EXPECT_THAT(source_names(plan, layer_tensor(2, query)), ElementsAre("b:" + layer_tensor(1, query)));
  EXPECT_THAT(source_names(plan, layer_tensor(3, query)), ElementsAre("b:" + layer_tensor(2, query)));
  EXPECT_FALSE(has_operation(plan, layer_tensor(4, query)));
  EXPECT_THAT(source_names(plan, kEmbeddingName), ElementsAre(std::string("a:") + kEmbeddingName));
  EXPECT_THAT(source_names(plan, kNorm), ElementsAre(std::string("b:") + kNorm));
  EXPECT_THAT(source_names(plan, kHead), ElementsAre(std::string("b:") + kHead));
  EXPECT_EQ(output_config_of(plan)["num_hidden_layers"], 4);
  EXPECT_EQ(drop_reason(plan, "b", layer_tensor(0, query)), "its layer is in no slice");
  EXPECT_EQ(drop_reason(plan, "a", kNorm), "taken from the last slice's models");
  EXPECT_EQ(drop_reason(plan, "b", kEmbeddingName), "taken from the first slice's models");
  expect_conservation(plan);
}

TEST(MergePlanner, SlicesMapLayersOfEachSource) {
  Workshop workshop;
  workshop.write("a", {.num_layers = 4});
  workshop.write("b", {.num_layers = 3});
  const MergePlan plan = workshop.plan(
      "slices:\n  - sources: [{model: $/a, layer_range: [2, 4]}, {model: $/b, layer_range: [0, 2]}]\nmerge_method: linear\nparameters: "
      "{weight: 1}\n");
  const std::string norm = "input_layernorm.weight";
  EXPECT_THAT(source_names(plan, layer_tensor(0, norm)), ElementsAre("a:" + layer_tensor(2, norm), "b:" + layer_tensor(0, norm)));
  EXPECT_THAT(source_names(plan, layer_tensor(1, norm)), ElementsAre("a:" + layer_tensor(3, norm), "b:" + layer_tensor(1, norm)));
  EXPECT_EQ(output_config_of(plan)["num_hidden_layers"], 2);
  expect_conservation(plan);
}

TEST(MergePlanner, ALayerMayBeUsedTwice) {
  Workshop workshop;
  workshop.write("a", {});
  const MergePlan plan = workshop.plan(
      "slices:\n  - sources: [{model: $/a, layer_range: [0, 2]}]\n  - sources: [{model: $/a, layer_range: [0, 2]}]\nmerge_method: "
      "passthrough\n");
  EXPECT_THAT(source_names(plan, layer_tensor(3, "mlp.up_proj.weight")), ElementsAre("a:" + layer_tensor(1, "mlp.up_proj.weight")));
  EXPECT_EQ(output_config_of(plan)["num_hidden_layers"], 4);
  expect_conservation(plan);
}

TEST(MergePlanner, RefusesALayerRangeBeyondTheModel) {
  Workshop workshop;
  workshop.write("a", {});
  expect_error([&] { workshop.plan("slices:\n  - sources:\n    - {model: $/a, layer_range: [1, 5]}\nmerge_method: passthrough\n"); },
               ErrorCode::kInvalidConfig, {"merge.yml:3", "[1, 5]", workshop.path("a"), "has 2 layers"});
}

TEST(MergePlanner, RefusesSourcesOfUnequalLength) {
  Workshop workshop;
  workshop.write("a", {});
  workshop.write("b", {});
  expect_error(
      [&] {
        workshop.plan(
            "slices:\n  - sources:\n    - {model: $/a, layer_range: [0, 2]}\n    - {model: $/b, layer_range: [0, 1]}\nmerge_method: "
            "linear\n"
            "parameters: {weight: 1}\n");
      },
      ErrorCode::kInvalidConfig, {"merge.yml:4", "has 2 here", "1."});
}

TEST(MergePlanner, RefusesABaseThatIsNotAmongTheSources) {
  Workshop workshop;
  for (const char* name : {"a", "b", "base"}) workshop.write(name, {});
  expect_error(
      [&] {
        workshop.plan(
            "slices:\n  - sources: [{model: $/a, layer_range: [0, 2]}, {model: $/b, layer_range: [0, 2]}]\n"
            "base_model: $/base\nmerge_method: slerp\nparameters: {t: 0.5}\n");
      },
      ErrorCode::kInvalidConfig, {"merge.yml:2", workshop.path("base"), "not among the sources"});
}

TEST(MergePlanner, RefusesWholeModelsOfUnequalDepth) {
  Workshop workshop;
  workshop.write("a", {});
  workshop.write("b", {.num_layers = 3});
  expect_error([&] { workshop.plan(kLinear); }, ErrorCode::kInvalidConfig, {"has 2 layers", workshop.path("b"), "3"});
}

TEST(MergePlanner, AModelThatIsNowhereIsRefusedAtItsLine) {
  Workshop workshop;
  workshop.write("a", {});
  expect_error([&] { workshop.plan("models:\n  - model: $/a\n  - model: $/absent\nmerge_method: linear\nparameters: {weight: 1}\n"); },
               ErrorCode::kInvalidInput, {"merge.yml:3", "absent"});
  expect_error(
      [&] { workshop.plan("base_model: $/absent\ngate_mode: random\nexperts:\n  - source_model: $/a\n  - source_model: $/lost\n"); },
      ErrorCode::kInvalidInput, {"merge.yml:1", "absent", "merge.yml:5", "lost"});
}

TEST(MergePlanner, RefusesAModelThatIsThereTwice) {
  Workshop workshop;
  workshop.write("a", {});
  expect_error([&] { workshop.plan("models:\n  - {model: $/a}\n  - {model: $/a}\nmerge_method: linear\nparameters: {weight: 1}\n"); },
               ErrorCode::kInvalidConfig, {"merge.yml:3", workshop.path("a"), "twice"});
}

TEST(MergePlanner, TiedModelsStayTied) {
  Workshop workshop;
  for (const char* name : {"a", "b"}) workshop.write(name, {.has_head = false});
  const MergePlan plan = workshop.plan(kLinear);
  EXPECT_FALSE(has_operation(plan, kHead));
  EXPECT_EQ(output_config_of(plan)["tie_word_embeddings"], true);
}

TEST(MergePlanner, ATiedModelGivesItsEmbeddingToTheOthersHead) {
  for (const bool first_is_tied : {true, false}) {
    Workshop workshop;
    workshop.write("a", {.has_head = !first_is_tied});
    workshop.write("b", {.has_head = first_is_tied});
    const MergePlan plan = workshop.plan(kLinear);
    const std::string of_a = std::string("a:") + (first_is_tied ? kEmbeddingName : kHead);
    const std::string of_b = std::string("b:") + (first_is_tied ? kHead : kEmbeddingName);
    EXPECT_THAT(source_names(plan, kHead), ElementsAre(of_a, of_b));
    EXPECT_EQ(output_config_of(plan)["tie_word_embeddings"], false);
    expect_conservation(plan);
  }
}

TEST(MergePlanner, TensorsThatFollowFromTheConfigAreDropped) {
  Workshop workshop;
  const std::string derived = layer_tensor(0, "self_attn.rotary_emb.inv_freq");
  workshop.write("a", {.extra = {{derived, DType::kF32, {2}}}});
  workshop.write("b", {});
  const MergePlan plan = workshop.plan(kLinear);
  EXPECT_EQ(drop_reason(plan, "a", derived), "derived from the config");
  expect_conservation(plan);
}

TEST(MergePlanner, PassthroughOfTheSameTypeIsACopy) {
  Workshop workshop;
  workshop.write("a", {});
  const std::string config = "models: [{model: $/a}]\nmerge_method: passthrough\n";
  EXPECT_EQ(operation_named(workshop.plan(config), kNorm).kind, Operation::Kind::kCopy);
  EXPECT_EQ(operation_named(workshop.plan(config + "out_dtype: bfloat16\n"), kNorm).kind, Operation::Kind::kCopy);
  EXPECT_EQ(operation_named(workshop.plan(config + "out_dtype: float16\n"), kNorm).kind, Operation::Kind::kMerge);
  EXPECT_EQ(operation_named(workshop.plan(config + "parameters: {scale: 2}\n"), kNorm).kind, Operation::Kind::kMerge);
}

TEST(MergePlanner, RefusesUnequalShapesWithBoth) {
  Workshop workshop;
  workshop.write("a", {});
  workshop.write("b", {.ffn = 8});
  expect_error([&] { workshop.plan(kLinear); }, ErrorCode::kInvalidInput,
               {"mlp.gate_proj.weight", "is [6, 4] in", "[8, 4] in", workshop.path("a"), workshop.path("b"), "5 more tensors"});
}

TEST(MergePlanner, UnlikeVocabulariesNeedTheFlagThatTruncates) {
  Workshop workshop;
  workshop.write("a", {.vocabulary = 12});
  workshop.write("b", {.vocabulary = 10});
  expect_error([&] { workshop.plan(kLinear); }, ErrorCode::kInvalidInput, {"[12, 4]", "[10, 4]", "--unsafe-truncate-embeddings"});
  PlanOptions options;
  options.unsafe_truncate_embeddings = true;
  const MergePlan plan = workshop.plan(kLinear, options);
  for (const char* name : {kEmbeddingName, kHead}) {
    EXPECT_EQ(tensor_named(plan, name).shape, (Shape{10, 4})) << name;
    for (const SourceView& source : operation_named(plan, name).sources) EXPECT_EQ(source.num_elements, 40U);
  }
  EXPECT_EQ(output_config_of(plan)["vocab_size"], 10);
  EXPECT_THAT(plan.warnings, Contains(HasSubstr("first 10 rows")));
}

TEST(MergePlanner, TheShortestOfEmbeddingAndHeadDecidesForBoth) {
  Workshop workshop;
  std::vector<formats::TensorLayout> padded = tensors_of({});
  for (auto& tensor : padded) {
    if (tensor.name == kEmbeddingName) tensor.shape = {16, 4};
  }
  workshop.write("a", padded, config_of({}));
  workshop.write("b", {.vocabulary = 12});
  PlanOptions options;
  options.unsafe_truncate_embeddings = true;
  const MergePlan plan = workshop.plan(kLinear, options);
  EXPECT_EQ(tensor_named(plan, kEmbeddingName).shape, (Shape{10, 4}));
  EXPECT_EQ(tensor_named(plan, kHead).shape, (Shape{10, 4}));
}

TEST(MergePlanner, RefusesATensorThatOnlyOneModelHas) {
  Workshop workshop;
  workshop.write("a", {});
  workshop.write("b", {.extra = {{"model.extra.weight", DType::kBF16, {4}}}});
  expect_error([&] { workshop.plan(kLinear); }, ErrorCode::kInvalidInput, {"model.extra.weight", workshop.path("b"), "--allow-crimes"});
  PlanOptions options;
  options.allow_crimes = true;
  const MergePlan plan = workshop.plan(kLinear, options);
  EXPECT_THAT(drop_reason(plan, "b", "model.extra.weight"), HasSubstr("no such tensor"));
  expect_conservation(plan);
}

TEST(MergePlanner, RefusesATensorThatOneModelLacksEvenWithCrimes) {
  Workshop workshop;
  workshop.write("a", {.extra = {{"model.extra.weight", DType::kBF16, {4}}}});
  workshop.write("b", {});
  PlanOptions options;
  options.allow_crimes = true;
  expect_error([&] { workshop.plan(kLinear, options); }, ErrorCode::kInvalidInput, {"model.extra.weight", "not in '" + workshop.path("b")});
}

TEST(MergePlanner, UnlikeArchitecturesNeedAllowCrimes) {
  Workshop workshop;
  workshop.write("a", {});
  workshop.write("b", {.architecture = "CousinForCausalLM"});
  expect_error([&] { workshop.plan(kLinear); }, ErrorCode::kInvalidInput, {"LlamaForCausalLM", "CousinForCausalLM", "--allow-crimes"});
  PlanOptions options;
  options.allow_crimes = true;
  const MergePlan plan = workshop.plan(kLinear, options);
  const std::string down = layer_tensor(1, "mlp.down_proj.weight");
  EXPECT_THAT(source_names(plan, down), ElementsAre("a:" + down, "b:" + down));
  expect_conservation(plan);
}

TEST(MergePlanner, AnOverriddenArchitectureIsTheModelsOwn) {
  Workshop workshop;
  workshop.write("a", {});
  workshop.write("b", {.architecture = "CousinForCausalLM"});
  const std::string parameters = "merge_method: linear\nparameters: {weight: 1}\n";
  const std::string cousin = "{model: {model: $/b, override_architecture: LlamaForCausalLM}}";
  const MergePlan plan = workshop.plan("models: [{model: $/a}, " + cousin + "]\n" + parameters);
  const std::string down = layer_tensor(1, "mlp.down_proj.weight");
  EXPECT_THAT(source_names(plan, down), ElementsAre("a:" + down, "b:" + down));
  const MergePlan from_cousin = workshop.plan("models: [" + cousin + ", {model: $/a}]\n" + parameters);
  EXPECT_EQ(output_config_of(from_cousin)["architectures"], formats::Json({"LlamaForCausalLM"}));
  expect_error(
      [&] { workshop.plan("models: [{model: {model: $/a, override_architecture: CousinForCausalLM}}, {model: $/a}]\n" + parameters); },
      ErrorCode::kInvalidInput, {"CousinForCausalLM", "--allow-crimes"});
}

TEST(MergePlanner, ModelsThatNoTableKnowsAreMatchedByName) {
  Workshop workshop;
  for (const char* name : {"a", "b"}) workshop.write(name, {.num_layers = 11, .architecture = "CousinForCausalLM"});
  const MergePlan plan = workshop.plan(kLinear);
  EXPECT_EQ(plan.operations.size(), tensors_of({.num_layers = 11}).size());
  const std::string down = layer_tensor(10, "mlp.down_proj.weight");
  EXPECT_THAT(source_names(plan, down), ElementsAre("a:" + down, "b:" + down));
  expect_conservation(plan);
}

}  // namespace
}  // namespace moeweld::plan
