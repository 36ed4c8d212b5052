#include "plan/output_layout.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "moeweld/formats/safetensors.h"
#include "unit/expect_error.h"

namespace moeweld::plan {
namespace {

OutputTensor tensor(const std::string& name, DType dtype, const Shape& shape) {
  OutputTensor result;
  result.name = name;
  result.dtype = dtype;
  result.shape = shape;
  Operation part;
  part.name = name;
  part.task.shape = shape;
  part.task.output_dtype = dtype;
  result.parts.push_back(std::move(part));
  return result;
}

MergePlan laid_out(std::vector<OutputTensor> tensors, std::uint64_t shard_size_bytes = 1'000'000) {
  MergePlan plan;
  PlanOptions options;
  options.out_shard_size_bytes = shard_size_bytes;
  lay_out(std::move(tensors), options, plan);
  return plan;
}

std::vector<std::vector<std::string>> names_by_file(const MergePlan& plan) {
  std::vector<std::vector<std::string>> result(plan.output_files.size());
  for (const PlannedTensor& planned : plan.tensors) result.at(planned.file).push_back(planned.name);
  return result;
}

TEST(OutputLayout, OneFileHasNoNumber) {
  const MergePlan plan = laid_out({tensor("a", DType::kU8, {100})});
  ASSERT_EQ(plan.output_files.size(), 1U);
  EXPECT_EQ(plan.output_files[0].name, "model.safetensors");
}

TEST(OutputLayout, AFileIsClosedBeforeItsDataExceedTheShardSize) {
  std::vector<OutputTensor> tensors;
  for (const char* name : {"a", "b", "c", "d", "e"}) tensors.push_back(tensor(name, DType::kU8, {100}));
  const MergePlan plan = laid_out(std::move(tensors), 299);
  ASSERT_EQ(plan.output_files.size(), 3U);
  EXPECT_EQ(plan.output_files[0].name, "model-00001-of-00003.safetensors");
  EXPECT_EQ(plan.output_files[2].name, "model-00003-of-00003.safetensors");
  EXPECT_EQ(names_by_file(plan), (std::vector<std::vector<std::string>>{{"a", "b"}, {"c", "d"}, {"e"}}));
}

TEST(OutputLayout, TensorsThatFillAShardExactlyStayTogether) {
  const MergePlan plan = laid_out({tensor("a", DType::kU8, {100}), tensor("b", DType::kU8, {100}), tensor("c", DType::kU8, {1})}, 200);
  EXPECT_EQ(names_by_file(plan), (std::vector<std::vector<std::string>>{{"a", "b"}, {"c"}}));
}

TEST(OutputLayout, ATensorLargerThanTheShardSizeHasAFileOfItsOwn) {
  const MergePlan plan = laid_out({tensor("a", DType::kU8, {10}), tensor("big", DType::kU8, {1000}), tensor("b", DType::kU8, {10})}, 100);
  EXPECT_EQ(names_by_file(plan), (std::vector<std::vector<std::string>>{{"a"}, {"big"}, {"b"}}));
}

TEST(OutputLayout, WiderElementsComeFirstAndEqualOnesKeepTheirOrder) {
  const MergePlan plan = laid_out({tensor("half", DType::kBF16, {3}), tensor("byte", DType::kU8, {1}), tensor("single", DType::kF32, {3}),
                                   tensor("half too", DType::kF16, {1}), tensor("double", DType::kF64, {1})});
  EXPECT_EQ(names_by_file(plan), (std::vector<std::vector<std::string>>{{"double", "single", "half", "half too", "byte"}}));
  for (const PlannedTensor& planned : plan.tensors) EXPECT_EQ(planned.begin % size_bytes(planned.dtype), 0U) << planned.name;
}

// 128 MiB of data: whole MiB come first, whatever the width of their elements, and the data begin at one.
TEST(OutputLayout, InALargeFileMatricesOfWholeMebibytesBeginAndEndAtOne) {
  constexpr std::uint64_t kMebibyte = 1 << 20;
  const std::vector<OutputTensor> tensors = {tensor("norm", DType::kBF16, {4096}), tensor("q", DType::kBF16, {32, kMebibyte}),
                                             tensor("bias", DType::kF32, {7}), tensor("k", DType::kF32, {16, kMebibyte}),
                                             tensor("odd", DType::kBF16, {3})};
  const MergePlan large = laid_out(tensors, 1'000'000'000);
  EXPECT_EQ(names_by_file(large), (std::vector<std::vector<std::string>>{{"q", "k", "bias", "norm", "odd"}}));
  EXPECT_EQ(large.output_files[0].header.size(), kMebibyte);
  EXPECT_EQ(large.tensors[0].begin, kMebibyte);
  EXPECT_EQ(large.tensors[1].begin, 65 * kMebibyte);
  for (const PlannedTensor& planned : large.tensors) EXPECT_EQ(planned.begin % size_bytes(planned.dtype), 0U) << planned.name;
  const PlannedOutputFile& file = large.output_files[0];
  const auto header = formats::parse_safetensors_header(std::string_view(file.header).substr(8), file.size_bytes, file.name);
  EXPECT_EQ(header.tensors.size(), 5U);

  const MergePlan small = laid_out(tensors, 100 * kMebibyte);
  EXPECT_EQ(names_by_file(small), (std::vector<std::vector<std::string>>{{"bias", "norm", "q"}, {"k", "odd"}}));
  EXPECT_EQ(small.output_files[0].header.size(), formats::kDataAlignment);
}

TEST(OutputLayout, HeadersSayWhereThePlanPutsEachTensor) {
  const MergePlan plan = laid_out({tensor("a", DType::kBF16, {3, 5}), tensor("scalar", DType::kF32, {}),
                                   tensor("none", DType::kBF16, {0, 5}), tensor("b", DType::kBF16, {7})},
                                  35);
  ASSERT_GT(plan.output_files.size(), 1U);
  std::size_t next = 0;
  for (std::uint32_t file = 0; file < plan.output_files.size(); ++file) {
    const PlannedOutputFile& planned = plan.output_files[file];
    EXPECT_EQ(planned.header.size() % formats::kDataAlignment, 0U);
    const auto header = formats::parse_safetensors_header(std::string_view(planned.header).substr(8), planned.size_bytes, planned.name);
    for (const auto& read : header.tensors) {
      const PlannedTensor& expected = plan.tensors.at(next++);
      EXPECT_EQ(expected.file, file);
      EXPECT_EQ(read.name, expected.name);
      EXPECT_EQ(read.dtype, expected.dtype);
      EXPECT_EQ(read.shape, expected.shape);
      EXPECT_EQ(read.begin, expected.begin);
      EXPECT_EQ(read.end, expected.begin + expected.size_bytes);
    }
  }
  EXPECT_EQ(next, plan.tensors.size());
}

TEST(OutputLayout, PartsFollowOneAnotherWithinTheirTensor) {
  OutputTensor fused = tensor("fused", DType::kBF16, {2, 3, 4});
  fused.parts.front().task.shape = {3, 4};
  fused.parts.push_back(fused.parts.front());
  const MergePlan plan = laid_out({tensor("before", DType::kBF16, {8}), std::move(fused)});
  ASSERT_EQ(plan.operations.size(), 3U);
  EXPECT_EQ(plan.operations[1].tensor, 1U);
  EXPECT_EQ(plan.operations[1].offset_bytes, 0U);
  EXPECT_EQ(plan.operations[2].tensor, 1U);
  EXPECT_EQ(plan.operations[2].offset_bytes, 24U);
  const Destination place = destination(plan, plan.operations[2]);
  EXPECT_EQ(place.begin, plan.output_files[0].header.size() + 16 + 24);
  EXPECT_EQ(place.size_bytes, 24U);
}

TEST(OutputLayout, RefusesPartsThatDoNotCoverTheirTensor) {
  OutputTensor short_one = tensor("short", DType::kBF16, {2, 3});
  short_one.parts.front().task.shape = {3};
  expect_error([&] { laid_out({short_one}); }, ErrorCode::kInternal, {"short", "6 bytes", "has 12"});
}

TEST(OutputLayout, RefusesANameThatComesTwice) {
  expect_error(
      [] {
        laid_out({tensor("a", DType::kU8, {1}), tensor("a", DType::kU8, {1})});
      },
      ErrorCode::kInternal, {"'a'", "Two output tensors"});
}

}  // namespace
}  // namespace moeweld::plan
