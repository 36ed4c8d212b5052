#include "moeweld/plan/merge_plan.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "unit/expect_error.h"

namespace moeweld::plan {
namespace {

/// Every field differs from its default.
MergePlan full_plan() {
  MergePlan plan;
  plan.title = "title";
  plan.config_path = "merge.yml";
  plan.config_text = "models: []\n";
  plan.seed = 0xFEDCBA9876543210;
  plan.models = {{"org/a", "/models/a"}, {"org/b", "/models/b"}};
  plan.input_files = {{"/models/a/model.safetensors", {.size_bytes = 1234567890123, .modified_ns = 42}, 1}};
  plan.output_files = {{"model.safetensors", std::string("\0header", 7), 99}};
  plan.tensors = {{"tensor", DType::kF16, {2, 3}, 1, 4096, 12}};
  Operation operation;
  operation.kind = Operation::Kind::kRandomFill;
  operation.name = "part";
  operation.tensor = 7;
  operation.offset_bytes = 8;
  operation.method = 3;
  operation.task = {.shape = {2, 3},
                    .output_dtype = DType::kF32,
                    .inputs = {{DType::kBF16, {0.5, -1}}},
                    .base_index = 2,
                    .parameters = {0.25},
                    .tensor_key = 11,
                    .seed = 12};
  const SourceView child{.dtype = DType::kI64, .file = 5, .begin = 6, .num_elements = 7, .children = {}};
  operation.sources = {{.dtype = DType::kBF16, .file = 1, .begin = 2, .num_elements = 3, .children = {child}}};
  operation.fill = {.distribution = Operation::RandomFill::Distribution::kUniform, .scale = 0.125, .stream = 13, .first_index = 14};
  operation.slot = 15;
  plan.operations = {operation};
  plan.slots = {{.name = "slot",
                 .shape = {2, 4},
                 .embedding = child,
                 .embedding_shape = {10, 4},
                 .positive_ids = {{{1, 2}}},
                 .negative_ids = {{{3}, {-4}}}}};
  plan.auxiliary_files = {{AuxiliaryFile::Action::kDrop, "name", "content", "source", "reason"}};
  plan.dropped = {{"org/b", "lost", 6, "because"}};
  plan.notes = {"note"};
  plan.warnings = {"warning"};
  plan.base_models = {"org/a"};
  return plan;
}

TEST(MergePlan, EveryFieldSurvivesTheWayToAnotherRank) {
  const MergePlan expected = full_plan();
  const MergePlan plan = decode(encode(expected));
  EXPECT_EQ(plan.title, "title");
  EXPECT_EQ(plan.config_path, "merge.yml");
  EXPECT_EQ(plan.config_text, "models: []\n");
  EXPECT_EQ(plan.seed, 0xFEDCBA9876543210);
  ASSERT_EQ(plan.models.size(), 2U);
  EXPECT_EQ(plan.models[1].reference, "org/b");
  EXPECT_EQ(plan.models[1].directory, "/models/b");
  ASSERT_EQ(plan.input_files.size(), 1U);
  EXPECT_EQ(plan.input_files[0].path, "/models/a/model.safetensors");
  EXPECT_EQ(plan.input_files[0].identity.size_bytes, 1234567890123U);
  EXPECT_EQ(plan.input_files[0].identity.modified_ns, 42);
  EXPECT_EQ(plan.input_files[0].model, 1U);
  ASSERT_EQ(plan.output_files.size(), 1U);
  EXPECT_EQ(plan.output_files[0].header, std::string("\0header", 7));
  EXPECT_EQ(plan.output_files[0].size_bytes, 99U);
  ASSERT_EQ(plan.tensors.size(), 1U);
  EXPECT_EQ(plan.tensors[0].dtype, DType::kF16);
  EXPECT_EQ(plan.tensors[0].shape, (Shape{2, 3}));
  EXPECT_EQ(plan.tensors[0].begin, 4096U);
  ASSERT_EQ(plan.slots.size(), 1U);
  EXPECT_EQ(plan.slots[0].embedding.begin, 6U);
  EXPECT_EQ(plan.slots[0].negative_ids, expected.slots[0].negative_ids);
  ASSERT_EQ(plan.auxiliary_files.size(), 1U);
  EXPECT_EQ(plan.auxiliary_files[0].action, AuxiliaryFile::Action::kDrop);
  EXPECT_EQ(plan.auxiliary_files[0].reason, "reason");
  ASSERT_EQ(plan.dropped.size(), 1U);
  EXPECT_EQ(plan.dropped[0].reason, "because");
  EXPECT_EQ(plan.notes, expected.notes);
  EXPECT_EQ(plan.warnings, expected.warnings);
  EXPECT_EQ(plan.base_models, expected.base_models);
}

TEST(MergePlan, OperationsSurviveTheWayToAnotherRank) {
  const MergePlan plan = decode(encode(full_plan()));
  ASSERT_EQ(plan.operations.size(), 1U);
  const Operation& operation = plan.operations[0];
  EXPECT_EQ(operation.kind, Operation::Kind::kRandomFill);
  EXPECT_EQ(operation.name, "part");
  EXPECT_EQ(operation.tensor, 7U);
  EXPECT_EQ(operation.offset_bytes, 8U);
  EXPECT_EQ(operation.method, 3U);
  EXPECT_EQ(operation.task.inputs[0].parameters, (std::vector<double>{0.5, -1}));
  EXPECT_EQ(operation.task.base_index, 2);
  EXPECT_EQ(operation.task.parameters, std::vector<double>{0.25});
  EXPECT_EQ(operation.task.tensor_key, 11U);
  EXPECT_EQ(operation.task.seed, 12U);
  EXPECT_EQ(operation.sources.at(0).children.at(0).dtype, DType::kI64);
  EXPECT_EQ(operation.sources[0].children[0].num_elements, 7U);
  EXPECT_EQ(operation.fill.distribution, Operation::RandomFill::Distribution::kUniform);
  EXPECT_EQ(operation.fill.scale, 0.125);
  EXPECT_EQ(operation.fill.first_index, 14U);
  EXPECT_EQ(operation.slot, 15U);
}

TEST(MergePlan, EncodingADecodedPlanGivesTheSameBytes) {
  const std::vector<std::byte> bytes = encode(full_plan());
  EXPECT_EQ(encode(decode(bytes)), bytes);
}

TEST(MergePlan, RefusesThePlanOfAnotherVersion) {
  MergePlan plan;
  plan.schema_version = 7;
  expect_error([&] { decode(encode(plan)); }, ErrorCode::kPeerFailed, {"schema 7", "different versions"});
}

TEST(MergePlan, RefusesTruncatedBytes) {
  std::vector<std::byte> bytes = encode(full_plan());
  bytes.resize(bytes.size() / 2);
  EXPECT_THROW(decode(bytes), Error);
}

TEST(MergePlan, CountsBytesInAndOut) {
  MergePlan plan = full_plan();
  plan.output_files.push_back({"other", "", 1});
  EXPECT_EQ(plan.output_bytes(), 100U);
  EXPECT_EQ(plan.input_bytes(), 6U);  // three bf16
}

}  // namespace
}  // namespace moeweld::plan
