#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "exec/finished_chunks.h"
#include "exec/main_pass.h"
#include "moeweld/exec/execute.h"
#include "moeweld/formats/safetensors.h"
#include "moeweld/plan/portions.h"
#include "support/paced_storage.h"
#include "support/synthetic_plan.h"
#include "unit/temporary_directory.h"

namespace moeweld::exec {
namespace {

using testing_support::expected_files;
using testing_support::make_synthetic_plan;
using testing_support::Pace;
using testing_support::PacedStorage;
using testing_support::read_file;

constexpr std::uint64_t kMiB = 1024 * 1024;

struct BalanceCase {
  std::string name;
  int num_models;
  bool has_base;
  std::vector<std::pair<std::string, double>> parameters;
};

std::vector<std::uint64_t> plan_sizes(const plan::MergePlan& plan) {
  std::vector<std::uint64_t> sizes;
  for (const plan::PlannedOutputFile& file : plan.output_files) sizes.push_back(file.size_bytes);
  return sizes;
}

const std::vector<BalanceCase> kCases = {
    {"linear", 2, false, {{"weight", 0.3}}},
    {"slerp", 2, true, {{"t", 0.4}}},
    {"ties", 3, true, {{"weight", 0.5}, {"density", 0.3}}},
};

class DynamicBalance : public testing::TestWithParam<BalanceCase> {
 protected:
  plan::MergePlan make_plan(int layers = 4) {
    const BalanceCase& method = GetParam();
    std::vector<testing_support::SyntheticTensor> tensors;
    for (int layer = 0; layer < layers; ++layer) {
      const std::string prefix = std::to_string(layer);
      tensors.push_back({prefix + "up", {700, 1531}, DType::kBF16});
      tensors.push_back({prefix + "norm", {1531}, DType::kBF16});
      tensors.push_back({prefix + "down", {1531, 500}, DType::kBF16});
      tensors.push_back({prefix + "bias", {7}, DType::kF32});
    }
    return make_synthetic_plan(directory_.path(), tensors, method.name, method.num_models, method.has_base, method.parameters, 5);
  }

  /// The others read `slowness` times as often as rank 0. Returns the report.
  MergeReport run(const plan::MergePlan& plan, int ranks, const ExecuteOptions& options, const std::string& name,
                  std::uint64_t slowness = 0) {
    const plan::Schedule schedule = plan::make_schedule(plan, ranks);
    MergeReport report;
    const auto pace = std::make_shared<Pace>(slowness);
    run_thread_peers(ranks, [&](Peers& peers) {
      PacedStorage storage(pace, peers.rank() == 0);
      const MergeReport mine = execute(peers, storage, plan, schedule, directory_ / name, options, {});
      if (peers.rank() == 0) report = mine;
    });
    return report;
  }

  void expect_output(const plan::MergePlan& plan, const std::string& name) {
    if (expected_.empty()) expected_ = expected_files(plan);
    for (std::size_t i = 0; i < expected_.size(); ++i) {
      EXPECT_TRUE(read_file(directory_ / (name + "/" + plan.output_files[i].name)) == expected_[i])
          << plan.output_files[i].name << " differs in " << name;
    }
  }

  TemporaryDirectory directory_;
  std::vector<std::string> expected_;
};

TEST_P(DynamicBalance, OthersTakeFromARankTenTimesSlowerAndTheBytesAreTheSame) {
  // Measured tensors are seldom cut, so portions are larger than asked for; and a rank's last two stay with it.
  const plan::MergePlan plan = make_plan(12);
  ExecuteOptions options;
  options.portion_bytes = kMiB;
  for (const int ranks : {2, 3}) {
    const std::string name = std::to_string(ranks) + " ranks";
    SCOPED_TRACE(name);
    // Nothing is taken ahead then: with portions this small it would be the whole share.
    options.in_one_thread = ranks == 2;
    const MergeReport report = run(plan, ranks, options, name, 10);
    expect_output(plan, name);
    EXPECT_EQ(report.written_bytes, plan.output_bytes());
    if (ranks != 2) continue;
    const std::uint64_t share = plan.output_bytes() / 2;
    EXPECT_LT(report.ranks[0].written_bytes, share * 2 / 3);
    EXPECT_GT(report.ranks[1].taken_bytes, share / 3);
    EXPECT_EQ(report.ranks[0].taken_bytes, 0U);
    EXPECT_GT(report.ranks[1].num_asked, 2U);
  }
}

TEST_P(DynamicBalance, UnderASmallMemoryLimitTheBytesAreTheSame) {
  const plan::MergePlan plan = make_plan();
  ExecuteOptions options;
  options.portion_bytes = kMiB;
  options.memory_limit_bytes = minimum_memory_bytes(plan) + (std::uint64_t{4} << 20);
  run(plan, 3, options, "small", 2);
  expect_output(plan, "small");
}

TEST_P(DynamicBalance, StaticLeavesEveryRankItsShare) {
  const plan::MergePlan plan = make_plan();
  ExecuteOptions options;
  options.portion_bytes = kMiB;
  options.balance = Balance::kStatic;
  const MergeReport report = run(plan, 2, options, "static");
  expect_output(plan, "static");
  const plan::Schedule schedule = plan::make_schedule(plan, 2);
  for (std::size_t rank = 0; rank < 2; ++rank) {
    std::uint64_t share = 0;
    for (const plan::FileRun& run : schedule.runs[rank]) share += run.end - run.begin;
    EXPECT_EQ(report.ranks[rank].written_bytes, share);
    EXPECT_EQ(report.ranks[rank].taken_bytes, 0U);
    EXPECT_EQ(report.ranks[rank].num_asked, 0U);
  }
}

/// Gives portions in the order it is told.
class InThisOrder final : public WorkSource {
 public:
  InThisOrder(const plan::Portions& portions, std::vector<std::uint64_t> order) : portions_(portions), order_(std::move(order)) {}
  std::optional<std::span<const plan::FileRun>> take(bool wait) override {
    if (!wait && ++num_asked_ % 3 == 0) return std::nullopt;  // the answer is not there yet
    if (next_ == order_.size()) return std::span<const plan::FileRun>();
    return portions_.runs_of(order_[next_++]);
  }

 private:
  const plan::Portions& portions_;
  const std::vector<std::uint64_t> order_;
  std::size_t next_ = 0;
  std::size_t num_asked_ = 0;
};

/// What one rank reads that does all of the plan in these portions, in this order.
std::uint64_t read_in_portions(const plan::MergePlan& plan, const plan::Portions& portions, const std::vector<std::uint64_t>& order,
                               const ExecuteOptions& options, const std::string& directory) {
  const auto peers = make_single_peer();
  const auto storage = make_posix_storage();
  storage->make_directories(directory);
  for (const plan::PlannedOutputFile& file : plan.output_files) storage->create_sized(directory + "/" + file.name, file.size_bytes);
  const plan::Schedule schedule = plan::make_schedule(plan, 1);
  const ProgressCallback nobody;
  WorldProgress progress(*peers, plan, schedule, true, nobody);
  RankPipeline pipeline(*storage, plan, options, progress);
  InThisOrder work(portions, order);
  const std::vector<RunDigests> digests = run_main_pass(work, directory, pipeline);
  FinishedChunks chunks(plan_sizes(plan));
  for (const RunDigests& run : digests) chunks.add(run);
  EXPECT_TRUE(chunks.remaining().empty());
  return pipeline.report.read_bytes;
}

/// Portions of one MiB, cut anywhere, in measured tensors too.
plan::Portions mebibytes_of(const plan::MergePlan& plan) {
  plan::Portions portions;
  for (std::uint32_t file = 0; file < plan.output_files.size(); ++file) {
    for (std::uint64_t begin = 0; begin < plan.output_files[file].size_bytes; begin += kMiB) {
      portions.first_run.push_back(portions.runs.size());
      portions.runs.push_back({file, begin, std::min(begin + kMiB, plan.output_files[file].size_bytes)});
    }
  }
  portions.first_run.push_back(portions.runs.size());
  return portions;
}

std::vector<std::uint64_t> in_order_of(const plan::Portions& portions) {
  std::vector<std::uint64_t> order(portions.first_run.size() - 1);
  std::iota(order.begin(), order.end(), std::uint64_t{0});
  return order;
}

TEST_P(DynamicBalance, PortionsInTheirOrderAreReadAsOneShareIsAndInAnyOrderGiveTheSameBytes) {
  const plan::MergePlan plan = make_plan();
  const plan::Schedule schedule = plan::make_schedule(plan, 1);
  for (const std::uint64_t limit : {minimum_memory_bytes(plan) + (std::uint64_t{4} << 20), std::uint64_t{2} << 30}) {
    ExecuteOptions options;
    options.memory_limit_bytes = limit;
    const plan::Portions whole = plan::make_portions(plan, schedule, std::uint64_t{1} << 40);
    ASSERT_EQ(whole.first_run.size(), 2U);
    const std::string name = std::to_string(limit);
    const std::uint64_t at_once = read_in_portions(plan, whole, {0}, options, directory_ / (name + "-whole"));
    expect_output(plan, name + "-whole");
    const plan::Portions portions = mebibytes_of(plan);
    std::vector<std::uint64_t> order = in_order_of(portions);
    const std::uint64_t in_order = read_in_portions(plan, portions, order, options, directory_ / (name + "-in-order"));
    expect_output(plan, name + "-in-order");
    EXPECT_LE(in_order, at_once + at_once / 50) << "nothing is read twice where nothing is taken";
    for (std::uint32_t seed = 0; seed < 2; ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      std::shuffle(order.begin(), order.end(), std::mt19937(seed));
      const std::string shuffled = name + "-shuffled-" + std::to_string(seed);
      read_in_portions(plan, portions, order, options, directory_ / shuffled);
      expect_output(plan, shuffled);
    }
  }
}

/// Codes of block-scaled FP8 with their scales behind them, several MiB of each matrix.
plan::MergePlan make_block_scaled_plan(const std::string& directory, const std::string& method,
                                       const std::vector<std::pair<std::string, double>>& parameters) {
  plan::MergePlan plan = make_synthetic_plan(directory, {{"first", {1032, 1532}}, {"second", {2000, 1532}}, {"third", {1532, 1000}}},
                                             method, 2, true, parameters);
  std::vector<plan::Operation> operations;
  std::vector<formats::TensorLayout> layout;
  for (plan::Operation codes : plan.operations) {
    const auto blocks = [](std::uint64_t extent) { return (extent + 127) / 128; };
    layout.push_back({codes.name, DType::kF8E4M3, codes.task.shape});
    layout.push_back({codes.name + "_scale_inv", DType::kF32, {blocks(codes.task.shape[0]), blocks(codes.task.shape[1])}});
    codes.tensor = static_cast<std::uint32_t>(operations.size());
    codes.block_scaled = true;
    codes.task.output_dtype = DType::kF32;
    plan::Operation scales = codes;
    scales.kind = plan::Operation::Kind::kBlockScales;
    scales.name += "_scale_inv";
    scales.tensor = codes.tensor + 1;
    scales.codes = codes.tensor;
    scales.block_scaled = false;
    scales.sources.clear();
    operations.push_back(std::move(codes));
    operations.push_back(std::move(scales));
  }
  plan.operations = std::move(operations);
  plan.tensors.clear();
  plan.output_files.resize(1);
  plan.output_files[0].header = formats::serialize_safetensors_header(layout);
  std::uint64_t offset = plan.output_files[0].header.size();
  for (const formats::TensorLayout& tensor : layout) {
    const std::uint64_t size = num_elements(tensor.shape) * size_bytes(tensor.dtype);
    plan.tensors.push_back({tensor.name, tensor.dtype, tensor.shape, 0, offset, size});
    offset += size;
  }
  plan.output_files[0].size_bytes = offset;
  return plan;
}

TEST(DynamicBalanceOfBlockScales, PortionsGiveTheBytesOfOneShareAndScalesNeedNoSecondReading) {
  const TemporaryDirectory directory;
  for (const std::string method : {"linear", "slerp"}) {
    SCOPED_TRACE(method);
    using Parameters = std::vector<std::pair<std::string, double>>;
    const plan::MergePlan plan =
        make_block_scaled_plan(directory.path(), method, method == "slerp" ? Parameters{{"t", 0.4}} : Parameters{{"weight", 0.5}});
    const auto output = [&](const std::string& name) { return read_file(directory / (name + "/" + plan.output_files[0].name)); };
    const plan::Portions whole = plan::make_portions(plan, plan::make_schedule(plan, 1), std::uint64_t{1} << 40);
    const std::uint64_t at_once = read_in_portions(plan, whole, {0}, {}, directory / (method + "-whole"));
    const plan::Portions portions = mebibytes_of(plan);
    std::vector<std::uint64_t> order = in_order_of(portions);
    const std::uint64_t in_order = read_in_portions(plan, portions, order, {}, directory / (method + "-in-order"));
    EXPECT_TRUE(output(method + "-in-order") == output(method + "-whole"));
    // A band that a border cuts is computed on both sides of it.
    EXPECT_LE(in_order, at_once + order.size() * 2 * 3 * 128 * 1532);
    std::shuffle(order.begin(), order.end(), std::mt19937(7));
    read_in_portions(plan, portions, order, {}, directory / (method + "-shuffled"));
    EXPECT_TRUE(output(method + "-shuffled") == output(method + "-whole"));
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, DynamicBalance, testing::ValuesIn(kCases), [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace moeweld::exec
