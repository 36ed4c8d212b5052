#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

const char* const kAssembly =
    "base_model: $/base\ngate_mode: random\nexperts:\n"
    "  - {source_model: $/a, positive_token_ids: [[1]]}\n  - {source_model: $/b, positive_token_ids: [[2]]}\n";

class ExtractionPlanner : public ::testing::Test {
 protected:
  ExtractionPlanner() {
    for (const char* name : {"a", "b", "base"}) workshop_.write(name, {});
    assembled_ = workshop_.plan(kAssembly);
    workshop_.write_output("mixture", assembled_);
  }

  /// Which tensor of which model went into the assembly where an operation of an extraction reads: "a:model.…".
  std::string origin(const MergePlan& extraction, const Operation& operation) const {
    const SourceView& source = operation.sources.at(0);
    for (const Operation& candidate : assembled_.operations) {
      const Destination place = destination(assembled_, candidate);
      const std::string file = workshop_.path("mixture") + "/" + assembled_.output_files[place.file].name;
      const bool same = extraction.input_files[source.file].path == file && place.begin == source.begin &&
                        place.size_bytes == source.num_elements * size_bytes(source.dtype);
      if (same) return source_name(assembled_, candidate.sources.at(0));
    }
    return "nothing";
  }

  void expect_comes_back(const MergePlan& extraction, const std::vector<std::string>& ffn_of_layers) const {
    EXPECT_EQ(extraction.tensors.size(), tensors_of({}).size());
    for (const auto& tensor : tensors_of({})) {
      std::string model = "base";
      for (std::size_t layer = 0; layer < ffn_of_layers.size(); ++layer) {
        if (tensor.name.starts_with("model.layers." + std::to_string(layer) + ".mlp.")) model = ffn_of_layers[layer];
      }
      const Operation& operation = operation_named(extraction, tensor.name);
      EXPECT_EQ(operation.kind, Operation::Kind::kCopy) << tensor.name;
      EXPECT_EQ(operation.task.shape, tensor.shape) << tensor.name;
      EXPECT_EQ(origin(extraction, operation), model + ":" + tensor.name);
    }
  }

  Workshop workshop_;
  MergePlan assembled_;
};

TEST_F(ExtractionPlanner, GivesBackTheBytesOfEachAssembledModel) {
  expect_comes_back(workshop_.extraction("mixture", {0}), {"a", "a"});
  expect_comes_back(workshop_.extraction("mixture", {1}), {"b", "b"});
}

TEST_F(ExtractionPlanner, TakesAnExpertForEachLayer) { expect_comes_back(workshop_.extraction("mixture", {1, 0}), {"b", "a"}); }

TEST_F(ExtractionPlanner, ReadsTheFusedLayout) {
  PlanOptions options;
  options.layout = config::Layout::kFused;
  assembled_ = workshop_.plan(kAssembly, options);
  workshop_.write_output("mixture", assembled_);
  expect_comes_back(workshop_.extraction("mixture", {1}), {"b", "b"});
}

TEST_F(ExtractionPlanner, WritesADenseConfig) {
  const formats::Json config = output_config_of(workshop_.extraction("mixture", {0}));
  EXPECT_EQ(config["architectures"][0], "MistralForCausalLM");
  EXPECT_FALSE(config.contains("num_local_experts"));
}

TEST_F(ExtractionPlanner, WhatIsNotTakenIsDroppedWithItsReason) {
  const MergePlan plan = workshop_.extraction("mixture", {1});
  EXPECT_EQ(plan.dropped.size(), 2U * (3 + 1));  // per layer the other expert and the router
  for (const DroppedTensor& tensor : plan.dropped)
    EXPECT_EQ(tensor.reason, tensor.name.ends_with("gate.weight") ? "a dense model has no router" : "another expert");
}

TEST_F(ExtractionPlanner, RefusesAnIndexBeyondTheExperts) {
  expect_error([&] { workshop_.extraction("mixture", {2}); }, ErrorCode::kUsage, {"no expert 2", "0 to 1"});
  expect_error([&] { workshop_.extraction("mixture", {-1}); }, ErrorCode::kUsage, {"no expert -1"});
}

TEST_F(ExtractionPlanner, RefusesAnotherNumberOfIndicesThanLayers) {
  expect_error([&] { workshop_.extraction("mixture", {0, 1, 0}); }, ErrorCode::kUsage, {"2 layers", "3 are given"});
}

TEST_F(ExtractionPlanner, RefusesAModelWithoutExperts) {
  expect_error([&] { workshop_.extraction("a", {0}); }, ErrorCode::kUnsupported,
               {workshop_.path("a"), "LlamaForCausalLM", "Mixtral, Qwen2-MoE"});
}

// Every file of all models, and what is in it: name of the tensor → names of what it is made of.
TEST_F(ExtractionPlanner, AllGivesWhatOneAfterTheOtherGives) {
  const MergePlan all = workshop_.extraction("mixture", {.what = Extraction::What::kAll});
  EXPECT_THAT(all.outputs, ::testing::ElementsAre("expert-0", "expert-1"));
  for (int expert = 0; expert < 2; ++expert) {
    const std::string directory = "expert-" + std::to_string(expert) + "/";
    const MergePlan one = workshop_.extraction("mixture", {expert});
    std::size_t found = 0;
    for (const Operation& operation : all.operations) {
      const PlannedOutputFile& file = all.output_files[destination(all, operation).file];
      const bool is_copied =
          std::any_of(file.copies.begin(), file.copies.end(), [&](const auto& copy) { return copy.starts_with(directory); });
      if (!file.name.starts_with(directory) && !is_copied) continue;
      ++found;
      const Operation& expected = operation_named(one, operation.name);
      EXPECT_EQ(operation.sources.at(0).begin, expected.sources.at(0).begin) << operation.name;
      EXPECT_EQ(operation.task.shape, expected.task.shape) << operation.name;
    }
    EXPECT_EQ(found, one.operations.size());
  }
}

TEST_F(ExtractionPlanner, AllReadsEveryByteOnce) {
  const MergePlan all = workshop_.extraction("mixture", {.what = Extraction::What::kAll});
  std::uint64_t router_bytes = 0;
  std::uint64_t input_bytes = 0;
  for (const PlannedTensor& tensor : assembled_.tensors) {
    input_bytes += tensor.size_bytes;
    if (tensor.name.ends_with("gate.weight")) router_bytes += tensor.size_bytes;
  }
  EXPECT_EQ(all.input_bytes(), input_bytes - router_bytes);
  EXPECT_EQ(all.output_bytes(), [&] {
    std::uint64_t sum = 0;
    for (const PlannedOutputFile& file : all.output_files) sum += file.size_bytes * (1 + file.copies.size());
    return sum;
  }());
  EXPECT_EQ(all.num_files(), 4U);  // for each model what is shared and what is its own
}

TEST_F(ExtractionPlanner, AveragesAreWeightedSumsOverTheExperts) {
  const MergePlan equal = workshop_.extraction("mixture", {.what = Extraction::What::kAverage});
  const MergePlan weighted = workshop_.extraction("mixture", {.what = Extraction::What::kAverage, .weights = {1, 3}});
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  EXPECT_EQ(operation_named(equal, name).sources.size(), 2U);
  EXPECT_EQ(merge::method_table()[operation_named(equal, name).method].name, "linear");
  EXPECT_EQ(model_parameter(equal, name, 1, "weight"), 1);
  EXPECT_EQ(model_parameter(weighted, name, 1, "weight"), 3);
  EXPECT_EQ(shared_parameter(weighted, name, "normalize"), 1);
  EXPECT_EQ(operation_named(weighted, "lm_head.weight").kind, Operation::Kind::kCopy);
  expect_error(
      [&] {
        workshop_.extraction("mixture", {.what = Extraction::What::kAverage, .weights = {1, 2, 3}});
      },
      ErrorCode::kUsage, {"--weights has 3 values", "2 experts"});
  expect_error(
      [&] {
        workshop_.extraction("mixture", {.what = Extraction::What::kAverage, .weights = {1, -1}});
      },
      ErrorCode::kUsage, {"the weights add up to 0"});
}

TEST_F(ExtractionPlanner, MergesTakeParametersOfAllOrOfEachExpert) {
  const auto merged = [&](std::vector<std::pair<std::string, std::vector<double>>> parameters, std::optional<int> base) {
    return workshop_.extraction("mixture",
                                {.what = Extraction::What::kMerge, .method = "ties", .parameters = std::move(parameters), .base = base});
  };
  const MergePlan plan = merged({{"density", {0.25}}, {"weight", {2, 5}}, {"lambda", {0.5}}}, 1);
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  EXPECT_EQ(operation_named(plan, name).task.base_index, 1);
  EXPECT_EQ(model_parameter(plan, name, 0, "weight"), 2);
  EXPECT_EQ(model_parameter(plan, name, 0, "density"), 0.25);
  EXPECT_EQ(shared_parameter(plan, name, "lambda"), 0.5);
  expect_error([&] { merged({{"weight", {1}}}, std::nullopt); }, ErrorCode::kUsage, {"'ties' needs a base", "--base"});
  expect_error([&] { merged({{"weight", {1}}}, 2); }, ErrorCode::kUsage, {"no expert 2", "0 to 1"});
  expect_error(
      [&] {
        merged({{"wait", {1}}, {"weight", {1, 2, 3}}, {"lambda", {1, 2}}}, 0);
      },
      ErrorCode::kUsage, {"no parameter 'wait'", "'weight' has 3 values", "'lambda' has 2 values"});
  expect_error([&] { merged({}, 0); }, ErrorCode::kUsage, {"needs a value for 'weight'"});
  for (const char* method : {"expert_variation", "router_weighted", "nonsense"}) {
    expect_error([&] { workshop_.extraction("mixture", {.what = Extraction::What::kMerge, .method = method}); }, ErrorCode::kUsage,
                 {"no merge method", method});
  }
  expect_error([&] { workshop_.extraction("mixture", {.what = Extraction::What::kMerge, .method = "linear", .base = 0}); },
               ErrorCode::kUsage, {"'linear' has no base"});
}

TEST_F(ExtractionPlanner, WeightsByTheRouterAreAnOpenSlot) {
  const MergePlan plan = workshop_.extraction("mixture", {.what = Extraction::What::kRouterWeighted});
  ASSERT_EQ(plan.slots.size(), 1U);
  EXPECT_EQ(plan.slots[0].shape, (Shape{2, 2}));
  EXPECT_THAT(plan.slots[0].layers, ::testing::ElementsAre(0, 1));
  const Operation& second = operation_named(plan, "model.layers.1.mlp.gate_proj.weight");
  EXPECT_EQ(merge::method_table()[second.method].name, "router_weighted");
  EXPECT_EQ(second.fill.first_index, 2U);
}

TEST_F(ExtractionPlanner, TheModelCardSaysWhatTheModelIsNot) {
  const std::vector<std::string> about = workshop_.extraction("mixture", {1}).about;
  EXPECT_THAT(about, ::testing::Contains(::testing::HasSubstr("expert 1 of the mixture")));
  EXPECT_THAT(about, ::testing::Contains(::testing::HasSubstr("not a usable model by itself")));
}

/// A DeepSeek v1: a dense layer of width 20, then one with experts of width 6 and a shared one of width 6.
class DeepseekExtraction : public ::testing::Test {
 protected:
  DeepseekExtraction() {
    std::vector<formats::TensorLayout> tensors = tensors_of({.ffn = 20});
    std::erase_if(tensors, [](const auto& tensor) { return tensor.name.starts_with("model.layers.1.mlp."); });
    const auto add = [&](const std::string& name, Shape shape) {
      tensors.push_back({"model.layers.1.mlp." + name + ".weight", DType::kBF16, std::move(shape)});
    };
    add("gate", {3, 4});
    for (const char* expert : {"experts.0", "experts.1", "experts.2", "shared_experts"}) {
      add(std::string(expert) + ".gate_proj", {6, 4});
      add(std::string(expert) + ".up_proj", {6, 4});
      add(std::string(expert) + ".down_proj", {4, 6});
    }
    formats::Json config = config_of({.ffn = 20, .architecture = "DeepseekForCausalLM"});
    config["model_type"] = "deepseek";
    config.update({{"n_routed_experts", 3},
                   {"n_shared_experts", 1},
                   {"num_experts_per_tok", 2},
                   {"moe_intermediate_size", 6},
                   {"first_k_dense_replace", 1},
                   {"moe_layer_freq", 1}});
    workshop_.write("deepseek", tensors, config);
  }
  Workshop workshop_;
};

TEST_F(DeepseekExtraction, PutsTheSharedExpertBesideAndPadsToTheWidest) {
  const MergePlan plan = workshop_.extraction("deepseek", {2});
  EXPECT_EQ(output_config_of(plan)["intermediate_size"], 20);
  EXPECT_EQ(output_config_of(plan)["architectures"][0], "LlamaForCausalLM");
  const Operation& gate = operation_named(plan, "model.layers.1.mlp.gate_proj.weight");
  const Operation& down = operation_named(plan, "model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(gate.task.shape, (Shape{20, 4}));
  EXPECT_EQ(down.task.shape, (Shape{4, 20}));
  for (const Operation* operation : {&gate, &down}) {
    const SourceView& view = operation->sources.at(0);
    ASSERT_EQ(view.children.size(), 3U);
    const std::string matrix = operation == &gate ? "gate_proj" : "down_proj";
    EXPECT_EQ(view.kind, operation == &gate ? SourceView::Kind::kRows : SourceView::Kind::kColumns);
    EXPECT_EQ(source_name(plan, view.children[0]), "deepseek:model.layers.1.mlp.experts.2." + matrix + ".weight");
    EXPECT_EQ(source_name(plan, view.children[1]), "deepseek:model.layers.1.mlp.shared_experts." + matrix + ".weight");
    EXPECT_EQ(view.children[2].kind, SourceView::Kind::kZeros);
    EXPECT_EQ(view.children[2].num_elements, 8U * 4);
  }
  EXPECT_EQ(source_names(plan, "model.layers.0.mlp.up_proj.weight").front(), "deepseek:model.layers.0.mlp.up_proj.weight");
}

TEST_F(DeepseekExtraction, ReadsTheSharedExpertOnceForAll) {
  const MergePlan plan = workshop_.extraction("deepseek", {.what = Extraction::What::kAll});
  std::uint64_t used = 0;
  const auto storage = make_posix_storage();
  for (const auto& tensor : formats::read_checkpoint(*storage, workshop_.path("deepseek")).tensors) {
    if (!tensor.name.ends_with("mlp.gate.weight")) used += tensor.size_bytes;
  }
  EXPECT_EQ(plan.input_bytes(), used);
}

TEST_F(DeepseekExtraction, ReadsTheSharedExpertOnceForAMergeOverExperts) {
  const std::uint64_t all = workshop_.extraction("deepseek", {.what = Extraction::What::kAll}).input_bytes();
  EXPECT_EQ(workshop_.extraction("deepseek", {.what = Extraction::What::kAverage}).input_bytes(), all);
}

/// A Qwen2-MoE of one layer: two experts of width 6 and a gated shared one of width 10.
TEST(QwenExtraction, DropsAGatedSharedExpertOnlyWhenTold) {
  const Workshop workshop;
  std::vector<formats::TensorLayout> tensors = tensors_of({.num_layers = 1});
  std::erase_if(tensors, [](const auto& tensor) { return tensor.name.starts_with("model.layers.0.mlp."); });
  const auto add = [&](const std::string& name, Shape shape) {
    tensors.push_back({"model.layers.0." + name, DType::kBF16, std::move(shape)});
  };
  for (const char* matrix : {"q", "k", "v"}) add("self_attn." + std::string(matrix) + "_proj.bias", {4});
  add("mlp.gate.weight", {2, 4});
  add("mlp.shared_expert_gate.weight", {1, 4});
  for (const char* expert : {"experts.0", "experts.1", "shared_expert"}) {
    const std::uint64_t width = expert == std::string("shared_expert") ? 10 : 6;
    add("mlp." + std::string(expert) + ".gate_proj.weight", {width, 4});
    add("mlp." + std::string(expert) + ".up_proj.weight", {width, 4});
    add("mlp." + std::string(expert) + ".down_proj.weight", {4, width});
  }
  formats::Json config = config_of({.num_layers = 1, .architecture = "Qwen2MoeForCausalLM"});
  config.update({{"model_type", "qwen2_moe"},
                 {"num_experts", 2},
                 {"num_experts_per_tok", 1},
                 {"moe_intermediate_size", 6},
                 {"shared_expert_intermediate_size", 10},
                 {"decoder_sparse_step", 1}});
  workshop.write("qwen", tensors, config);
  expect_error([&] { workshop.extraction("qwen", {1}); }, ErrorCode::kUnsupported, {"gated shared expert", "--gated-shared drop"});
  const MergePlan plan = workshop.extraction("qwen", Extraction{.experts = {1}, .drop_gated_shared = true});
  EXPECT_EQ(output_config_of(plan)["intermediate_size"], 6);
  EXPECT_EQ(source_names(plan, "model.layers.0.mlp.up_proj.weight").front(), "qwen:model.layers.0.mlp.experts.1.up_proj.weight");
  std::size_t num_shared = 0;
  for (const DroppedTensor& tensor : plan.dropped) num_shared += tensor.reason == "gated shared experts are dropped" ? 1 : 0;
  EXPECT_EQ(num_shared, 4U);
  EXPECT_THAT(plan.about, ::testing::Contains(::testing::HasSubstr("gated shared experts are left out")));
}

}  // namespace
}  // namespace moeweld::plan
