#include "moeweld/plan/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "unit/plan/divided_plans.h"

namespace moeweld::plan {
namespace {

void expect_every_byte_once(const MergePlan& plan, const Schedule& schedule) {
  std::uint32_t file = 0;
  std::uint64_t position = 0;
  for (const auto& runs : schedule.runs) {
    for (const FileRun& run : runs) {
      EXPECT_LT(run.begin, run.end);
      if (position == plan.output_files.at(file).size_bytes) {
        ++file;
        position = 0;
      }
      ASSERT_EQ(run.file, file);
      ASSERT_EQ(run.begin, position);
      ASSERT_LE(run.end, plan.output_files.at(file).size_bytes);
      EXPECT_TRUE(run.end % kMiB == 0 || run.end == plan.output_files[file].size_bytes) << run.end;
      position = run.end;
    }
  }
  EXPECT_EQ(file + 1, plan.output_files.size());
  EXPECT_EQ(position, plan.output_files.back().size_bytes);
}

/// Ranks that write bytes of an operation.
std::vector<int> writers(const MergePlan& plan, const Schedule& schedule, const Operation& operation) {
  const Destination place = destination(plan, operation);
  std::vector<int> result;
  for (int rank = 0; rank < schedule.world_size; ++rank) {
    const auto& runs = schedule.runs[static_cast<std::size_t>(rank)];
    const bool writes = std::any_of(runs.begin(), runs.end(), [&](const FileRun& run) {
      return run.file == place.file && run.begin < place.begin + place.size_bytes && run.end > place.begin;
    });
    if (writes) result.push_back(rank);
  }
  return result;
}

TEST(Schedule, EveryByteHasOneWriterWhateverTheNumberOfRanks) {
  for (const char* method : {"linear", "slerp"}) {
    const MergePlan plan = plan_of(method);
    ASSERT_GT(plan.output_files.size(), 2U);
    for (int world_size = 1; world_size <= 512; ++world_size) {
      const Schedule schedule = make_schedule(plan, world_size);
      ASSERT_EQ(schedule.runs.size(), static_cast<std::size_t>(world_size));
      expect_every_byte_once(plan, schedule);
      if (HasFatalFailure()) FAIL() << method << " on " << world_size << " ranks";
    }
  }
}

TEST(Schedule, MeasurementsAreSharedExactlyWhereTensorsAre) {
  const MergePlan plan = plan_of("slerp");
  for (const int world_size : {1, 2, 3, 7, 16, 64, 200, 512}) {
    const Schedule schedule = make_schedule(plan, world_size);
    std::map<std::uint32_t, const SharedMeasurement*> shared;
    for (const SharedMeasurement& measurement : schedule.measurements)
      EXPECT_TRUE(shared.emplace(measurement.operation, &measurement).second);
    for (std::uint32_t index = 0; index < plan.operations.size(); ++index) {
      const std::vector<int> ranks = writers(plan, schedule, plan.operations[index]);
      EXPECT_EQ(shared.contains(index), ranks.size() > 1) << plan.operations[index].name << " on " << world_size << " ranks";
      if (shared.contains(index)) {
        EXPECT_EQ(shared[index]->ranks, ranks);
      }
    }
  }
}

TEST(Schedule, SharedMeasurementsListEveryBlockOnce) {
  const MergePlan plan = plan_of("slerp");
  std::size_t num_shared = 0;
  for (const int world_size : {2, 3, 7, 16, 64, 200, 512}) {
    for (const SharedMeasurement& measurement : make_schedule(plan, world_size).measurements) {
      ++num_shared;
      const std::uint64_t elements = plan.operations[measurement.operation].task.elements();
      ASSERT_EQ(measurement.first_block.size(), measurement.ranks.size() + 1);
      EXPECT_EQ(measurement.first_block.front(), 0U);
      EXPECT_EQ(measurement.first_block.back(), (elements + 262'143) / 262'144);
      EXPECT_TRUE(std::is_sorted(measurement.first_block.begin(), measurement.first_block.end()));
    }
  }
  EXPECT_GT(num_shared, 0U);
}

// So that what is measured is mostly what the rank reads anyway.
TEST(Schedule, ABlockIsMeasuredByTheRankThatWritesItsFirstElement) {
  const MergePlan plan = plan_of("slerp");
  for (const int world_size : {3, 64}) {
    const Schedule schedule = make_schedule(plan, world_size);
    ASSERT_FALSE(schedule.measurements.empty());
    for (const SharedMeasurement& measurement : schedule.measurements) {
      const Operation& operation = plan.operations[measurement.operation];
      const Destination place = destination(plan, operation);
      const std::uint64_t block_bytes = 262'144 * size_bytes(operation.task.output_dtype);
      for (std::size_t i = 0; i < measurement.ranks.size(); ++i) {
        for (std::uint64_t block = measurement.first_block[i]; block < measurement.first_block[i + 1]; ++block) {
          const std::uint64_t position = place.begin + block * block_bytes;
          const auto& runs = schedule.runs[static_cast<std::size_t>(measurement.ranks[i])];
          EXPECT_TRUE(
              std::any_of(runs.begin(), runs.end(),
                          [&](const FileRun& run) { return run.file == place.file && run.begin <= position && position < run.end; }))
              << operation.name << " block " << block;
        }
      }
    }
  }
}

TEST(Schedule, MethodsWithoutMeasuringShareNone) {
  const MergePlan plan = plan_of("linear");
  for (const int world_size : {2, 16, 512}) EXPECT_TRUE(make_schedule(plan, world_size).measurements.empty());
}

TEST(Schedule, RanksWriteAboutTheSame) {
  const MergePlan plan = plan_of("linear");
  for (const int world_size : {2, 4, 8, 16}) {
    const double share = static_cast<double>(plan.output_bytes()) / world_size;
    for (const RankLoad& load : rank_loads(plan, make_schedule(plan, world_size))) {
      // Borders move by 3 % of a share and half a MiB, at both ends; a header costs no reading.
      const double slack = 2 * (0.03 * share + 0.5 * kMiB) + 16384;
      EXPECT_NEAR(static_cast<double>(load.write_bytes), share, slack) << world_size << " ranks";
    }
  }
}

TEST(Schedule, LoadsAddUpToThePlansBytes) {
  const MergePlan plan = plan_of("linear");
  std::uint64_t read = 0;
  std::uint64_t written = 0;
  for (const RankLoad& load : rank_loads(plan, make_schedule(plan, 7))) {
    read += load.read_bytes;
    written += load.write_bytes;
  }
  EXPECT_EQ(written, plan.output_bytes());
  EXPECT_NEAR(static_cast<double>(read), static_cast<double>(plan.input_bytes()), 1000);  // each part is rounded down
}

TEST(Schedule, ABorderNextToAMeasuredTensorsEndIsMovedThere) {
  std::vector<OutputTensor> tensors;
  // 4 KiB of header, then 50.2 MiB and 49.8 MiB: half of it lies inside the first tensor, a shard's end 0.2 % further.
  tensors.push_back(merged("first", "slerp", 26'319'257));
  tensors.push_back(merged("second", "slerp", 26'109'542));
  MergePlan plan;
  PlanOptions options;
  options.out_shard_size_bytes = 60 * kMiB;
  lay_out(std::move(tensors), options, plan);
  ASSERT_EQ(plan.output_files.size(), 2U);
  const Schedule schedule = make_schedule(plan, 2);
  EXPECT_TRUE(schedule.measurements.empty());
  ASSERT_EQ(schedule.runs[0].size(), 1U);
  EXPECT_EQ(schedule.runs[0][0].end, plan.output_files[0].size_bytes);
}

/// About half of the output, in pieces of a few MiB.
std::vector<FileRun> some_of(const MergePlan& plan, std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<FileRun> result;
  for (std::uint32_t file = 0; file < plan.output_files.size(); ++file) {
    const std::uint64_t size = plan.output_files[file].size_bytes;
    for (std::uint64_t begin = generator() % 5 * kMiB; begin < size;) {
      const std::uint64_t end = std::min(begin + (1 + generator() % 40) * kMiB, size);
      result.push_back({file, begin, end});
      begin = end + (1 + generator() % 40) * kMiB;
    }
  }
  return result;
}

TEST(Schedule, WhatRemainsOfARunIsWrittenOnceAndNothingElse) {
  for (const char* method : {"linear", "slerp"}) {
    const MergePlan plan = plan_of(method);
    for (std::uint32_t seed = 0; seed < 20; ++seed) {
      const std::vector<FileRun> remaining = some_of(plan, seed);
      for (const int world_size : {1, 2, 3, 16, 100}) {
        const Schedule schedule = make_schedule(plan, world_size, remaining);
        // Joined again where ranks meet, the runs are what was asked for.
        std::vector<FileRun> joined;
        for (const auto& runs : schedule.runs) {
          for (const FileRun& run : runs) {
            if (!joined.empty() && joined.back().file == run.file && joined.back().end == run.begin) {
              joined.back().end = run.end;
            } else {
              joined.push_back(run);
            }
          }
        }
        ASSERT_EQ(joined, remaining) << method << ", seed " << seed << ", " << world_size << " ranks";
      }
    }
  }
}

TEST(Schedule, WhatRemainsIsSharedAboutEvenly) {
  const MergePlan plan = plan_of("linear");
  const std::vector<FileRun> remaining = some_of(plan, 3);
  std::uint64_t total = 0;
  for (const FileRun& run : remaining) total += run.end - run.begin;
  for (const int world_size : {2, 4, 8}) {
    const double share = static_cast<double>(total) / world_size;
    for (const auto& runs : make_schedule(plan, world_size, remaining).runs) {
      std::uint64_t bytes = 0;
      for (const FileRun& run : runs) bytes += run.end - run.begin;
      EXPECT_NEAR(static_cast<double>(bytes), share, 2 * (0.03 * share + 0.5 * kMiB) + 16384) << world_size << " ranks";
    }
  }
}

TEST(Schedule, ATensorOfWhichOnlyAPartRemainsIsMeasuredWhole) {
  const MergePlan plan = plan_of("slerp");
  for (std::uint32_t seed = 0; seed < 5; ++seed) {
    const std::vector<FileRun> remaining = some_of(plan, seed);
    for (const int world_size : {1, 2, 7}) {
      const Schedule schedule = make_schedule(plan, world_size, remaining);
      std::map<std::uint32_t, const SharedMeasurement*> shared;
      for (const SharedMeasurement& measurement : schedule.measurements) shared[measurement.operation] = &measurement;
      for (std::uint32_t index = 0; index < plan.operations.size(); ++index) {
        const Destination place = destination(plan, plan.operations[index]);
        std::uint64_t left = 0;
        std::size_t num_runs = 0;
        for (const auto& runs : schedule.runs) {
          for (const FileRun& run : runs) {
            if (run.file != place.file || run.begin >= place.begin + place.size_bytes || run.end <= place.begin) continue;
            left += std::min(run.end, place.begin + place.size_bytes) - std::max(run.begin, place.begin);
            ++num_runs;
          }
        }
        EXPECT_EQ(shared.contains(index), left != 0 && (left != place.size_bytes || num_runs > 1)) << plan.operations[index].name;
        if (!shared.contains(index)) continue;
        EXPECT_EQ(shared[index]->first_block.front(), 0U);
        EXPECT_EQ(shared[index]->first_block.back(), (plan.operations[index].task.elements() + 262'143) / 262'144);
        EXPECT_TRUE(std::is_sorted(shared[index]->first_block.begin(), shared[index]->first_block.end()));
      }
    }
  }
}

TEST(Schedule, APlanWithoutFilesGivesNoRankWork) {
  const Schedule schedule = make_schedule(MergePlan{}, 3);
  for (const auto& runs : schedule.runs) EXPECT_TRUE(runs.empty());
}

}  // namespace
}  // namespace moeweld::plan
