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
  expect_error([&] { workshop_.extraction("a", {0}); }, ErrorCode::kUnsupported, {workshop_.path("a"), "LlamaForCausalLM", "Mixtral"});
}

}  // namespace
}  // namespace moeweld::plan
