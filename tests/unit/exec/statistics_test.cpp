#include "moeweld/exec/statistics.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "moeweld/exec/execute.h"
#include "support/synthetic_plan.h"
#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld::exec {
namespace {

using testing_support::make_assembly_plan;
using testing_support::make_synthetic_plan;
using testing_support::place_of;
using testing_support::read_file;

/// Every bit of the figures.
std::string bits(const std::vector<TensorStatistics>& tensors) {
  std::string text;
  const auto add = [&](double value) { text += " " + std::to_string(std::bit_cast<std::uint64_t>(value)); };
  const auto add_values = [&](const ValueStatistics& value) {
    for (const double number : {value.norm, value.max_absolute, value.cosine, value.difference_norm}) add(number);
    text += " " + std::to_string(value.non_finite);
  };
  for (const TensorStatistics& tensor : tensors) {
    text += tensor.name + (tensor.is_measured ? "" : " (not measured)");
    for (const ValueStatistics& value : tensor.inputs) add_values(value);
    add_values(tensor.result);
    add(tensor.sign_conflicts);
    add(tensor.density_kept);
    text += " " + std::to_string(tensor.left_out) + "\n";
  }
  return text;
}

double value_at(const std::string& bytes, std::uint64_t offset, DType dtype) {
  if (dtype == DType::kF32) {
    float value = 0;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return static_cast<double>(value);
  }
  std::uint16_t code = 0;
  std::memcpy(&code, bytes.data() + offset, sizeof code);
  return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(code) << 16));
}

class Statistics : public testing::Test {
 protected:
  /// One tensor of several blocks and odd length, so that borders of ranks, cells and windows never meet.
  plan::MergePlan make_plan(const std::string& method, int num_models, bool has_base,
                            const std::vector<std::pair<std::string, double>>& parameters) {
    return make_synthetic_plan(directory_.path(),
                               {{"model.embed_tokens.weight", {731, 1531}},
                                {"model.layers.0.input_layernorm.weight", {1531}},
                                {"bias", {7}},
                                {"empty", {0, 5}},
                                {"model.layers.1.mlp.experts.2.up_proj.weight", {150, 1531}},
                                {"scalar", {}, DType::kF32},
                                {"down", {1531, 50}, DType::kF32}},
                               method, num_models, has_base, parameters);
  }

  MergeReport run(const plan::MergePlan& plan, int ranks, ExecuteOptions options = {}) {
    options.gather_statistics = true;
    output_ = directory_ / ("out-" + std::to_string(number_++));
    const plan::Schedule schedule = plan::make_schedule(plan, ranks);
    MergeReport result;
    run_thread_peers(ranks, [&](Peers& peers) {
      preflight(peers, *storage_, plan, output_, options);
      MergeReport report = execute(peers, *storage_, plan, schedule, output_, options, {});
      if (peers.rank() == 0) {
        result = std::move(report);
      } else {
        EXPECT_TRUE(report.statistics.empty());
      }
    });
    return result;
  }

  /// By the words of the header, an element at a time, from the files.
  void expect_definitions(const plan::MergePlan& plan, const std::vector<TensorStatistics>& found) {
    std::vector<std::string> inputs;
    for (const plan::PlannedInputFile& file : plan.input_files) inputs.push_back(read_file(file.path));
    ASSERT_EQ(found.size(), plan.operations.size());
    for (std::size_t index = 0; index < found.size(); ++index) {
      const plan::Operation& operation = plan.operations[index];
      const TensorStatistics& tensor = found[index];
      SCOPED_TRACE(tensor.name);
      EXPECT_EQ(tensor.name, operation.name);
      EXPECT_TRUE(tensor.is_measured);
      const plan::Destination place = plan::destination(plan, operation);
      const std::string file = read_file(output_ + "/" + plan.output_files[place.file].name);
      const std::size_t num_inputs = operation.sources.size();
      const std::uint64_t num = operation.task.elements();
      std::vector<long double> squares(num_inputs + 1);
      std::vector<long double> dot(num_inputs + 1);
      std::vector<long double> difference(num_inputs + 1);
      std::uint64_t conflicts = 0;
      std::uint64_t kept = 0;
      for (std::uint64_t i = 0; i < num; ++i) {
        std::vector<double> values;
        for (const plan::SourceView& source : operation.sources) {
          const auto [in, byte] = place_of(source, i);
          values.push_back(value_at(inputs[in], byte, source.dtype));
        }
        const double base = tensor.has_base ? values[0] : 0;
        bool up = false;
        bool down = false;
        for (std::size_t k = tensor.has_base ? 1 : 0; k < num_inputs; ++k) {
          up = up || values[k] > base;
          down = down || values[k] < base;
        }
        conflicts += up && down ? 1 : 0;
        values.push_back(value_at(file, place.begin + i * size_bytes(operation.task.output_dtype), operation.task.output_dtype));
        kept += values.back() != base ? 1 : 0;
        for (std::size_t k = 0; k < values.size(); ++k) {
          squares[k] += static_cast<long double>(values[k]) * values[k];
          dot[k] += static_cast<long double>(values[k]) * values[0];
          difference[k] += static_cast<long double>(values[k] - values[0]) * (values[k] - values[0]);
        }
      }
      for (std::size_t k = 0; k <= num_inputs; ++k) {
        const ValueStatistics& value = k < num_inputs ? tensor.inputs[k] : tensor.result;
        const auto near = [](double a, long double b) { return std::abs(a - static_cast<double>(b)) <= 1e-12 * std::abs(a); };
        EXPECT_TRUE(near(value.norm, std::sqrt(squares[k]))) << k << " " << value.norm;
        EXPECT_TRUE(near(value.difference_norm, std::sqrt(difference[k]))) << k << " " << value.difference_norm;
        if (num != 0) {
          EXPECT_TRUE(near(value.cosine, dot[k] / std::sqrt(squares[k] * squares[0]))) << k << " " << value.cosine;
        }
      }
      if (num == 0) {
        EXPECT_TRUE(std::isnan(tensor.density_kept));
        continue;
      }
      EXPECT_EQ(tensor.density_kept, static_cast<double>(kept) / static_cast<double>(num));
      if (num_inputs > (tensor.has_base ? 2U : 1U)) {
        EXPECT_EQ(tensor.sign_conflicts, static_cast<double>(conflicts) / static_cast<double>(num));
      } else {
        EXPECT_TRUE(std::isnan(tensor.sign_conflicts));
      }
    }
  }

  void expect_same_bits(const plan::MergePlan& plan) {
    const MergeReport alone = run(plan, 1);
    expect_definitions(plan, alone.statistics);
    const std::string expected = bits(alone.statistics);
    for (const int ranks : {2, 3, 7}) {
      ExecuteOptions options;
      options.threads = 1 + ranks % 3;
      // The smallest limit streams what needs measuring twice, and cuts windows and slots elsewhere.
      if (ranks != 7) options.memory_limit_bytes = minimum_memory_bytes(plan, true) + (std::uint64_t{12} << 20);
      EXPECT_EQ(bits(run(plan, ranks, options).statistics), expected) << ranks << " ranks";
    }
  }

  TemporaryDirectory directory_;
  std::shared_ptr<Storage> storage_ = make_posix_storage();
  std::string output_;
  int number_ = 0;
};

TEST_F(Statistics, OfLinearHaveTheSameBitsOnAnyRanksThreadsAndMemory) {
  expect_same_bits(make_plan("linear", 3, false, {{"weight", 0.3}}));
}
TEST_F(Statistics, OfTiesHaveTheSameBitsOnAnyRanksThreadsAndMemory) {
  expect_same_bits(make_plan("ties", 3, true, {{"weight", 0.5}, {"density", 0.3}}));
}
TEST_F(Statistics, OfSlerpHaveTheSameBitsOnAnyRanksThreadsAndMemory) { expect_same_bits(make_plan("slerp", 2, true, {{"t", 0.4}})); }
TEST_F(Statistics, OfAssembliesHaveTheSameBitsOnAnyRanksThreadsAndMemory) { expect_same_bits(make_assembly_plan(directory_.path())); }

TEST_F(Statistics, ChangeNoByteOfTheOutput) {
  const plan::MergePlan plan = make_plan("ties", 3, true, {{"weight", 0.5}, {"density", 0.3}});
  const std::vector<std::string> expected = testing_support::expected_files(plan);
  run(plan, 2);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(read_file(output_ + "/" + plan.output_files[i].name) == expected[i]) << plan.output_files[i].name;
  }
}

TEST_F(Statistics, NameLayersExpertsAndModels) {
  const MergeReport report = run(make_plan("slerp", 2, true, {{"t", 0.4}}), 2);
  const TensorStatistics& up = report.statistics[4];
  EXPECT_EQ(up.pattern, "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight");
  EXPECT_EQ(up.layer, 1);
  EXPECT_EQ(up.expert, 2);
  EXPECT_EQ(up.method, "slerp");
  EXPECT_EQ(up.models, (std::vector<std::uint32_t>{0, 1}));
  EXPECT_EQ(report.statistics[0].layer, -1);
}

TEST_F(Statistics, AreOfWholeTensorsThatTheRunComputedItself) {
  const plan::MergePlan plan = make_plan("linear", 2, false, {{"weight", 0.5}});
  const std::string whole = bits(run(plan, 1).statistics);
  // The first run ends after a part of the first tensor.
  ExecuteOptions options;
  options.gather_statistics = true;
  options.in_one_thread = true;
  options.journal_interval = std::chrono::duration<double>(0);
  options.memory_limit_bytes = minimum_memory_bytes(plan, true) + (std::uint64_t{12} << 20);
  const std::string output = directory_ / "resumed";
  const plan::Schedule schedule = plan::make_schedule(plan, 1);
  const auto peers = make_single_peer();
  std::uint64_t written = 0;
  EXPECT_THROW(execute(*peers, *storage_, plan, schedule, output, options,
                       [&](std::span<const Progress> ranks) {
                         written = ranks[0].written_bytes;
                         if (written > (std::uint64_t{1} << 20)) throw Error(ErrorCode::kInterrupted, "enough");
                       }),
               Error);
  options.resume = true;
  const MergeReport report = execute(*peers, *storage_, plan, schedule, output, options, {});
  EXPECT_GT(report.resumed_bytes, 0U);
  EXPECT_FALSE(report.statistics[0].is_measured);
  EXPECT_TRUE(std::isnan(report.statistics[0].result.norm));
  EXPECT_TRUE(report.statistics.back().is_measured);
  const std::string last = bits({report.statistics.back()});
  EXPECT_EQ(whole.substr(whole.size() - last.size()), last);
}

TEST_F(Statistics, NeedMemoryThatTheLimitCounts) {
  const plan::MergePlan plan = make_plan("linear", 3, false, {{"weight", 0.3}});
  EXPECT_GE(minimum_memory_bytes(plan, true) + (1 << 20), minimum_memory_bytes(plan) + statistics_bytes(plan));
  ExecuteOptions options;
  options.memory_limit_bytes = minimum_memory_bytes(plan, true) - (1 << 20);
  expect_error([&] { run(plan, 1, options); }, ErrorCode::kUsage, {"--memory-limit"});
}

}  // namespace
}  // namespace moeweld::exec
