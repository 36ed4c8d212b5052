#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "exec/expert_weights.h"
#include "exec/kept_reads.h"
#include "exec/restart.h"
#include "exec/view_reader.h"
#include "moeweld/exec/execute.h"
#include "moeweld/exec/manifest.h"
#include "moeweld/formats/shard_index.h"
#include "support/synthetic_plan.h"
#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld::exec {
namespace {

using testing_support::expected_files;
using testing_support::make_synthetic_plan;
using testing_support::read_file;

/// Two models: the first file is of both, the second and the third of one each.
class SeveralOutputs : public testing::Test {
 protected:
  plan::MergePlan make_plan() {
    plan::MergePlan plan = make_synthetic_plan(
        directory_.path(),
        {{"shared", {1031, 1531}, DType::kBF16}, {"own", {700, 1531}, DType::kBF16}, {"own too", {700, 1531}, DType::kBF16}}, "linear", 2,
        false, {{"weight", 0.3}}, 1);
    plan.outputs = {"left", "right"};
    plan.output_files[0].name = "left/shared.safetensors";
    plan.output_files[0].copies = {"right/shared.safetensors"};
    plan.output_files[1].name = "left/own.safetensors";
    plan.output_files[2].name = "right/own.safetensors";
    plan.auxiliary_files = {
        {.action = plan::AuxiliaryFile::Action::kWrite, .name = "config.json", .content = "{}\n", .source = {}, .reason = {}}};
    plan.about = {"what this is not"};
    return plan;
  }

  MergeReport run(const plan::MergePlan& plan, int ranks, const std::string& output) {
    MergeReport result;
    run_thread_peers(ranks, [&](Peers& peers) {
      preflight(peers, *storage_, plan, output, {});
      const MergeReport report = execute(peers, *storage_, plan, plan::make_schedule(plan, ranks), output, {}, {});
      if (peers.rank() == 0) result = report;
    });
    return result;
  }

  TemporaryDirectory directory_;
  std::shared_ptr<Storage> storage_ = make_posix_storage();
};

TEST_F(SeveralOutputs, AreCompleteModelsOfTheSameBytesOnAnyNumberOfRanks) {
  const plan::MergePlan plan = make_plan();
  const std::vector<std::string> expected = expected_files(plan);
  for (const int ranks : {1, 2, 5}) {
    SCOPED_TRACE(ranks);
    const std::string output = directory_ / ("out-" + std::to_string(ranks));
    const MergeReport report = run(plan, ranks, output);
    for (const char* model : {"/left", "/right"}) {
      const bool is_left = model == std::string("/left");
      EXPECT_TRUE(read_file(output + model + "/shared.safetensors") == expected[0]);
      EXPECT_TRUE(read_file(output + model + "/own.safetensors") == expected[is_left ? 1 : 2]);
      const std::string manifest_path = output + model + "/" + kManifestName;
      const Manifest manifest = parse_manifest(read_file(manifest_path), manifest_path);
      ASSERT_EQ(manifest.files.size(), 4U);
      const std::string index_path = output + model + "/model.safetensors.index.json";
      const formats::ShardIndex index = formats::parse_shard_index(read_file(index_path), index_path);
      EXPECT_EQ(index.weight_map.at("shared"), "shared.safetensors");
      EXPECT_EQ(index.weight_map.count("own"), is_left ? 1U : 0U);
      EXPECT_EQ(read_file(output + model + "/config.json"), "{}\n");
      EXPECT_NE(read_file(output + model + "/README.md").find("what this is not"), std::string::npos);
    }
    EXPECT_EQ(report.written_bytes, expected[0].size() * 2 + expected[1].size() + expected[2].size());
    EXPECT_EQ(report.read_bytes, plan.input_bytes());
    EXPECT_EQ(storage_->list(output).size(), 2U);
  }
}

TEST_F(SeveralOutputs, AppearTogetherOrNotAtAll) {
  plan::MergePlan plan = make_plan();
  plan.auxiliary_files.push_back({.action = plan::AuxiliaryFile::Action::kCopy,
                                  .name = "tokenizer.json",
                                  .content = {},
                                  .source = directory_ / "not-there",
                                  .reason = {}});
  expect_error([&] { run(plan, 2, directory_ / "out"); }, ErrorCode::kIo, {"not-there"});
  EXPECT_FALSE(storage_->exists(directory_ / "out"));
}

TEST_F(SeveralOutputs, ContinueWhereTheyStopped) {
  const plan::MergePlan plan = make_plan();
  const std::vector<std::string> expected = expected_files(plan);
  const std::string output = directory_ / "out";
  ExecuteOptions options;
  options.journal_interval = std::chrono::duration<double>(0);
  options.memory_limit_bytes = minimum_memory_bytes(plan) + (std::uint64_t{12} << 20);
  const auto once = [&](int ranks, const ProgressCallback& progress) {
    MergeReport result;
    run_thread_peers(ranks, [&](Peers& peers) {
      const MergeReport report = execute(peers, *storage_, plan, plan::make_schedule(plan, ranks), output, options, progress);
      if (peers.rank() == 0) result = report;
    });
    return result;
  };
  const ProgressCallback stop = [](std::span<const Progress> progress) {
    if (progress[0].written_bytes >= std::uint64_t{2} << 20) throw Error(ErrorCode::kInterrupted, "a signal asked to stop");
  };
  expect_error([&] { once(1, stop); }, ErrorCode::kInterrupted, {});
  options.resume = true;
  const MergeReport report = once(2, {});
  EXPECT_GE(report.resumed_bytes, std::uint64_t{2} << 20);
  EXPECT_EQ(report.resumed_bytes + report.written_bytes, plan.output_bytes());
  EXPECT_TRUE(read_file(output + "/left/shared.safetensors") == expected[0]);
  EXPECT_TRUE(read_file(output + "/right/shared.safetensors") == expected[0]);
  EXPECT_TRUE(read_file(output + "/left/own.safetensors") == expected[1]);
  EXPECT_TRUE(read_file(output + "/right/own.safetensors") == expected[2]);
  EXPECT_EQ(storage_->list(output).size(), 2U);
  // All models are there: nothing is left to do.
  run_thread_peers(1, [&](Peers& peers) { EXPECT_TRUE(is_published(peers, *storage_, plan, output, options)); });
}

TEST_F(SeveralOutputs, AreScheduledByWhatTheyWrite) {
  const plan::MergePlan plan = make_plan();
  const plan::Schedule schedule = plan::make_schedule(plan, 2);
  std::uint64_t sum = 0;
  for (const plan::RankLoad& load : plan::rank_loads(plan, schedule)) sum += load.write_bytes;
  EXPECT_EQ(sum, plan.output_bytes());
}

/// A plan in which two models read one leaf as part of bigger views.
plan::MergePlan plan_with_repeated_leaf(const std::string& path, std::uint64_t num_elements) {
  plan::MergePlan plan;
  plan.outputs = {"a", "b"};
  plan.input_files.push_back({path, make_posix_storage()->identity(path).value(), 0});
  for (std::uint64_t i = 0; i < 2; ++i) {
    plan::SourceView own{.dtype = DType::kBF16, .begin = 2 * i, .num_elements = 1, .columns = 1, .children = {}};
    plan::SourceView shared{.dtype = DType::kBF16, .begin = 8, .num_elements = num_elements, .columns = 1, .children = {}};
    plan::SourceView both{.kind = plan::SourceView::Kind::kRows, .dtype = DType::kBF16, .num_elements = num_elements + 1, .columns = 1};
    both.children = {own, shared};
    plan::Operation operation;
    operation.sources = {both};
    plan.operations.push_back(operation);
  }
  return plan;
}

TEST(KeptReads, ReadWhatRepeatsOnce) {
  const TemporaryDirectory directory;
  const std::string path = directory.write("data", "aabbccddSHARED bytes!!");
  const plan::MergePlan plan = plan_with_repeated_leaf(path, 7);
  EXPECT_EQ(plan.input_bytes(), 2U + 2 + 14);
  EXPECT_EQ(kept_read_bytes(plan), 14U);
  const auto storage = make_posix_storage();
  InputFiles files(*storage, plan, IoMode::kBuffered);
  ViewReader reader(files);
  for (std::uint64_t i = 0; i < 2; ++i) {
    std::string result(16, '?');
    const std::uint64_t read = reader.read(plan.operations[i].sources[0], 0, 8, reinterpret_cast<std::byte*>(result.data()));
    EXPECT_EQ(result, (i == 0 ? "aa" : "bb") + std::string("SHARED bytes!!"));
    EXPECT_EQ(read, i == 0 ? 16U : 2U);
  }
}

TEST(KeptReads, OneModelKeepsNothing) {
  const TemporaryDirectory directory;
  plan::MergePlan plan = plan_with_repeated_leaf(directory.write("data", "aabbccddSHARED bytes!!"), 7);
  plan.outputs.clear();
  EXPECT_EQ(kept_read_bytes(plan), 0U);
  EXPECT_EQ(KeptReads(plan).get({0, 8, 14}, [](std::vector<std::byte>&) { FAIL(); }), nullptr);
}

TEST(RouterNormWeights, AreTheNormsOfCentredRows) {
  // The mean is (1, 1): the centred rows are (2, 0), (-1, 0) and (-1, 0).
  EXPECT_EQ(router_norm_weights({3, 1, 0, 1, 0, 1}, 3), (std::vector<double>{0.5, 0.25, 0.25}));
  // A vector that is added to all rows changes nothing; two rows always weigh the same.
  EXPECT_EQ(router_norm_weights({103, 1, 100, 1, 100, 1}, 3), (std::vector<double>{0.5, 0.25, 0.25}));
  EXPECT_EQ(router_norm_weights({7, 8, 0, 0}, 2), (std::vector<double>{0.5, 0.5}));
  EXPECT_EQ(router_norm_weights({1, 2, 1, 2, 1, 2, 1, 2}, 4), (std::vector<double>{0.25, 0.25, 0.25, 0.25}));
  expect_error([] { router_norm_weights({1, NAN}, 2); }, ErrorCode::kInvalidInput, {"NaN"});
}

}  // namespace
}  // namespace moeweld::exec
