#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "unit/expect_error.h"
#include "unit/plan/tiny_models.h"

namespace moeweld::plan {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

const char* const kNormName = "model.norm.weight";
const char* const kCounter = "model.layers.0.counter";
const std::string kLinearConfig = "models: [{model: $/a}, {model: $/b}]\nmerge_method: linear\nparameters: {weight: 1}\n";

const AuxiliaryFile* file_named(const MergePlan& plan, const std::string& name) {
  const AuxiliaryFile* result = nullptr;
  for (const AuxiliaryFile& file : plan.auxiliary_files) {
    if (file.name != name) continue;
    EXPECT_EQ(result, nullptr) << name << " is there twice";
    result = &file;
  }
  return result;
}

std::string type_in_config(const MergePlan& plan) {
  const formats::Json config = output_config_of(plan);
  return config.contains("dtype") ? config["dtype"] : config["torch_dtype"];
}

TEST(MergeOutputType, IsThatOfTheInputs) {
  Workshop workshop;
  for (const char* name : {"a", "b"}) workshop.write(name, {.dtype = DType::kF16});
  const MergePlan plan = workshop.plan(kLinearConfig);
  EXPECT_EQ(tensor_named(plan, kNormName).dtype, DType::kF16);
  EXPECT_EQ(type_in_config(plan), "float16");
}

TEST(MergeOutputType, IsThePromotedOneOfUnlikeInputs) {
  Workshop workshop;
  workshop.write("a", {.dtypes = {{kNormName, DType::kF32}}});
  workshop.write("b", {.dtypes = {{"lm_head.weight", DType::kF16}}});
  const MergePlan plan = workshop.plan(kLinearConfig);
  EXPECT_EQ(tensor_named(plan, kNormName).dtype, DType::kF32);         // bf16 and f32
  EXPECT_EQ(tensor_named(plan, "lm_head.weight").dtype, DType::kF32);  // bf16 and f16
  EXPECT_EQ(tensor_named(plan, "model.embed_tokens.weight").dtype, DType::kBF16);
  EXPECT_EQ(operation_named(plan, kNormName).sources[0].dtype, DType::kF32);
  EXPECT_EQ(operation_named(plan, kNormName).sources[1].dtype, DType::kBF16);
}

TEST(MergeOutputType, IsDtypeUnlessOutDtypeIsGiven) {
  Workshop workshop;
  for (const char* name : {"a", "b"}) workshop.write(name, {});
  EXPECT_EQ(tensor_named(workshop.plan(kLinearConfig + "dtype: float32\n"), kNormName).dtype, DType::kF32);
  const MergePlan plan = workshop.plan(kLinearConfig + "dtype: float32\nout_dtype: float16\n");
  EXPECT_EQ(tensor_named(plan, kNormName).dtype, DType::kF16);
  EXPECT_EQ(type_in_config(plan), "float16");
}

TEST(MergeOutputType, TensorsOfIntegersAreCopiedAndComparedAsTheyAre) {
  Workshop workshop;
  for (const char* name : {"a", "b"}) workshop.write(name, {.extra = {{kCounter, DType::kI64, {3}}}});
  const MergePlan plan = workshop.plan(kLinearConfig + "out_dtype: float32\n");
  const Operation& operation = operation_named(plan, kCounter);
  EXPECT_EQ(operation.kind, Operation::Kind::kCopy);
  EXPECT_EQ(operation.sources.size(), 2U);
  EXPECT_EQ(tensor_named(plan, kCounter).dtype, DType::kI64);
  EXPECT_THAT(plan.notes, Contains(HasSubstr("1 tensors of other types")));
}

TEST(MergeOutputType, RefusesIntegersOfUnlikeTypes) {
  Workshop workshop;
  workshop.write("a", {.extra = {{kCounter, DType::kI64, {3}}}});
  workshop.write("b", {.extra = {{kCounter, DType::kI32, {3}}}});
  expect_error([&] { workshop.plan(kLinearConfig); }, ErrorCode::kInvalidInput, {kCounter, "is I64 in", "I32 in", workshop.path("b")});
}

TEST(MergeOutputFiles, ShardsHaveTheSizeThatIsAskedFor) {
  Workshop workshop;
  for (const char* name : {"a", "b"}) workshop.write(name, {});
  PlanOptions options;
  options.out_shard_size_bytes = 200;
  const MergePlan plan = workshop.plan(kLinearConfig, options);
  ASSERT_GT(plan.output_files.size(), 1U);
  for (const PlannedOutputFile& file : plan.output_files) EXPECT_LE(file.size_bytes - file.header.size(), 200U) << file.name;
}

class MergeTokenizers : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& vocabulary) {
    workshop_.write(name, {});
    workshop_.write_file(name + "/tokenizer.json", R"({"model": {"vocab": )" + vocabulary + "}}");
    workshop_.write_file(name + "/tokenizer_config.json", "{}");
  }
  void write_template(const std::string& name, const std::string& text) {
    workshop_.write_file(name + "/tokenizer_config.json", formats::Json{{"chat_template", text}}.dump());
  }

  Workshop workshop_;
};

TEST_F(MergeTokenizers, EqualOnesAreCopied) {
  write("a", R"({"x": 0, "y": 1})");
  write("b", R"({"y": 1, "x": 0})");
  for (const char* source : {"", "tokenizer_source: union\n", "tokenizer_source: base\nbase_model: $/a\n", "tokenizer_source: $/a\n"}) {
    const MergePlan plan = workshop_.plan(kLinearConfig + source);
    const AuxiliaryFile* file = file_named(plan, "tokenizer.json");
    ASSERT_NE(file, nullptr) << source;
    EXPECT_EQ(file->action, AuxiliaryFile::Action::kCopy) << source;
    EXPECT_EQ(file->source, workshop_.path("a") + "/tokenizer.json") << source;
  }
}

TEST_F(MergeTokenizers, TheNamedModelGivesIts) {
  write("a", R"({"x": 0})");
  write("b", R"({"x": 0})");
  const AuxiliaryFile* file = nullptr;
  const MergePlan plan = workshop_.plan(kLinearConfig + "tokenizer_source: $/b\n");
  ASSERT_NE(file = file_named(plan, "tokenizer.json"), nullptr);
  EXPECT_EQ(file->source, workshop_.path("b") + "/tokenizer.json");
}

TEST_F(MergeTokenizers, UnlikeOnesAreRefusedAtTheirLine) {
  write("a", R"({"x": 0, "y": 1})");
  write("b", R"({"x": 1, "y": 0})");
  expect_error([&] { workshop_.plan(kLinearConfig + "tokenizer_source: union\n"); }, ErrorCode::kUnsupported,
               {"merge.yml:4", workshop_.path("b"), "token 'x' has id 0 in the first and 1 in the second"});
}

TEST_F(MergeTokenizers, RowsThatAreAMultipleNeedNoPadding) {
  write("a", R"({"x": 0})");
  write("b", R"({"x": 0})");
  const MergePlan plan = workshop_.plan(kLinearConfig + "tokenizer: {source: $/a, pad_to_multiple_of: 5}\n");
  EXPECT_EQ(tensor_named(plan, "lm_head.weight").shape, (Shape{10, 4}));
  EXPECT_EQ(output_config_of(plan)["vocab_size"], 10);
}

TEST_F(MergeTokenizers, PaddingIsRefusedAtItsLine) {
  write("a", R"({"x": 0})");
  write("b", R"({"x": 0})");
  expect_error([&] { workshop_.plan(kLinearConfig + "tokenizer: {source: $/a, pad_to_multiple_of: 4}\n"); }, ErrorCode::kUnsupported,
               {"merge.yml:4", "pad_to_multiple_of", "10", "4"});
}

TEST_F(MergeTokenizers, AddedTokensCount) {
  for (const char* name : {"a", "b"}) write(name, R"({"x": 0})");
  workshop_.write_file("b/tokenizer.json", R"({"model": {"vocab": {"x": 0}}, "added_tokens": [{"id": 1, "content": "<new>"}]})");
  expect_error([&] { workshop_.plan(kLinearConfig + "tokenizer_source: union\n"); }, ErrorCode::kUnsupported, {"merge.yml:4", "<new>"});
}

TEST_F(MergeTokenizers, AreLeftOutWhenAskedFor) {
  for (const char* name : {"a", "b"}) write(name, R"({"x": 0})");
  PlanOptions options;
  options.copy_tokenizer = false;
  const MergePlan plan = workshop_.plan(kLinearConfig, options);
  EXPECT_EQ(file_named(plan, "tokenizer.json")->action, AuxiliaryFile::Action::kDrop);
}

TEST_F(MergeTokenizers, ACodeFileNeedsTrust) {
  for (const char* name : {"a", "b"}) workshop_.write(name, {});
  workshop_.write_file("a/modeling_a.py", "raise SystemExit\n");
  PlanOptions options;
  EXPECT_EQ(file_named(workshop_.plan(kLinearConfig, options), "modeling_a.py")->action, AuxiliaryFile::Action::kDrop);
  options.trust_remote_code = true;
  EXPECT_EQ(file_named(workshop_.plan(kLinearConfig, options), "modeling_a.py")->action, AuxiliaryFile::Action::kCopy);
}

TEST_F(MergeTokenizers, ANamedChatTemplateIsWrittenForOldAndNewReaders) {
  for (const char* name : {"a", "b"}) write(name, R"({"x": 0})");
  workshop_.write_file("a/chat_template.jinja", "{{ 'old' }}");
  const MergePlan plan = workshop_.plan(kLinearConfig + "chat_template: chatml\n");
  const AuxiliaryFile* file = file_named(plan, "chat_template.jinja");
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->action, AuxiliaryFile::Action::kWrite);
  EXPECT_THAT(file->content, HasSubstr("<|im_start|>"));
  EXPECT_EQ(formats::Json::parse(file_named(plan, "tokenizer_config.json")->content)["chat_template"], file->content);
}

TEST_F(MergeTokenizers, TheMostFrequentChatTemplateWins) {
  for (const char* name : {"a", "b", "c"}) write(name, R"({"x": 0})");
  write_template("a", "{{ 'rare' }}");
  write_template("b", "{{ 'common' }}");
  workshop_.write_file("c/chat_template.jinja", "{{ 'common' }}");
  const MergePlan plan = workshop_.plan(
      "models: [{model: $/a}, {model: $/b}, {model: $/c}]\nmerge_method: linear\nparameters: {weight: 1}\nchat_template: auto\n");
  ASSERT_NE(file_named(plan, "chat_template.jinja"), nullptr);
  EXPECT_EQ(file_named(plan, "chat_template.jinja")->content, "{{ 'common' }}");
}

TEST_F(MergeTokenizers, AnUnknownChatTemplateIsRefusedAtItsLine) {
  for (const char* name : {"a", "b"}) write(name, R"({"x": 0})");
  expect_error([&] { workshop_.plan(kLinearConfig + "chat_template: chatlm\n"); }, ErrorCode::kInvalidConfig,
               {"merge.yml:4", "'chatlm'", "chatml"});
}

}  // namespace
}  // namespace moeweld::plan
