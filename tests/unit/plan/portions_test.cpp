#include "moeweld/plan/portions.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "unit/plan/divided_plans.h"

namespace moeweld::plan {
namespace {

/// Runs that continue each other, as one.
std::vector<FileRun> joined(std::span<const FileRun> runs) {
  std::vector<FileRun> result;
  for (const FileRun& run : runs) {
    if (!result.empty() && result.back().file == run.file && result.back().end == run.begin) {
      result.back().end = run.end;
    } else {
      result.push_back(run);
    }
  }
  return result;
}

std::vector<FileRun> runs_of_rank(const Portions& portions, std::size_t rank) {
  std::vector<FileRun> runs;
  for (std::uint64_t portion = portions.first_portion.at(rank); portion < portions.first_portion.at(rank + 1); ++portion) {
    const auto part = portions.runs_of(portion);
    EXPECT_FALSE(part.empty()) << portion;
    runs.insert(runs.end(), part.begin(), part.end());
  }
  return runs;
}

TEST(Portions, OfARankAreItsRunsCutAtWholeMebibytes) {
  for (const char* method : {"linear", "slerp"}) {
    const MergePlan plan = plan_of(method);
    for (const int ranks : {1, 2, 3, 7, 64, 300}) {
      for (const std::uint64_t portion_bytes : {std::uint64_t{0}, kMiB, 5 * kMiB}) {
        SCOPED_TRACE(std::string(method) + " on " + std::to_string(ranks) + " ranks, " + std::to_string(portion_bytes));
        const Schedule schedule = make_schedule(plan, ranks);
        const Portions portions = make_portions(plan, schedule, portion_bytes);
        ASSERT_EQ(portions.first_portion.size(), static_cast<std::size_t>(ranks) + 1);
        EXPECT_EQ(portions.first_portion.back() + 1, portions.first_run.size());
        for (std::size_t rank = 0; rank < schedule.runs.size(); ++rank) {
          EXPECT_EQ(joined(runs_of_rank(portions, rank)), joined(schedule.runs[rank])) << rank;
        }
        for (const FileRun& run : portions.runs) {
          EXPECT_EQ(run.begin % kMiB, 0U);
          EXPECT_TRUE(run.end % kMiB == 0 || run.end == plan.output_files[run.file].size_bytes) << run.end;
        }
      }
    }
  }
}

TEST(Portions, OfWhatRemainsLeaveOutWhatIsFinished) {
  const MergePlan plan = plan_of("linear");
  std::vector<FileRun> remaining;
  for (std::uint32_t file = 0; file < plan.output_files.size(); ++file) {
    for (std::uint64_t begin = 3 * kMiB; begin < plan.output_files[file].size_bytes; begin += 7 * kMiB) {
      remaining.push_back({file, begin, std::min(begin + 4 * kMiB, plan.output_files[file].size_bytes)});
    }
  }
  const Portions portions = make_portions(plan, make_schedule(plan, 3, remaining), 2 * kMiB);
  EXPECT_EQ(joined(portions.runs), remaining);
  EXPECT_GT(portions.first_run.size(), remaining.size());
}

TEST(Portions, SayWhetherTheirBordersCostAnything) {
  const auto has_free_borders = [](const MergePlan& plan) {
    const Portions portions = make_portions(plan, make_schedule(plan, 2), 4 * kMiB);
    EXPECT_GT(portions.first_portion.back(), 8U);
    return portions.has_free_borders;
  };
  EXPECT_TRUE(has_free_borders(plan_of("linear"))) << "nothing is measured";
  EXPECT_FALSE(has_free_borders(plan_of("slerp"))) << "tensors end between two MiB";
  std::vector<OutputTensor> tensors;
  for (int layer = 0; layer < 20; ++layer) {
    tensors.push_back(merged(std::to_string(layer) + ".norm", "slerp", 4096));
    tensors.push_back(merged(std::to_string(layer) + ".up", "slerp", 4 * kMiB));
  }
  MergePlan plan;
  lay_out(std::move(tensors), {}, plan);
  EXPECT_TRUE(has_free_borders(plan)) << "tensors of 8 MiB side by side";
}

TEST(Portions, AreAboutAsLargeAsAskedWhereAnyCutIsAllowed) {
  const MergePlan plan = plan_of("linear");
  const Portions portions = make_portions(plan, make_schedule(plan, 2), 4 * kMiB);
  for (std::uint64_t portion = 0; portion + 1 < portions.first_run.size(); ++portion) {
    std::uint64_t bytes = 0;
    for (const FileRun& run : portions.runs_of(portion)) bytes += run.end - run.begin;
    EXPECT_GE(bytes, 2 * kMiB - 1) << portion;
    EXPECT_LE(bytes, 7 * kMiB) << portion;
  }
}

/// Input bytes of tensors that have to be measured, are not shared, and lie on both sides of where the portion ends.
std::uint64_t measured_twice(const MergePlan& plan, const Schedule& schedule, const FileRun& last) {
  std::uint64_t sum = 0;
  for (std::uint32_t index = 0; index < plan.operations.size(); ++index) {
    const Destination place = destination(plan, plan.operations[index]);
    if (place.file != last.file || last.end <= place.begin || last.end >= place.begin + place.size_bytes) continue;
    const bool is_shared =
        std::ranges::any_of(schedule.measurements, [&](const SharedMeasurement& shared) { return shared.operation == index; });
    if (!is_shared) sum += 2 * place.size_bytes;  // two inputs of the output's type
  }
  return sum;
}

TEST(Portions, CutATensorThatHasToBeMeasuredOnlyWhereThatCostsLittle) {
  const MergePlan plan = plan_of("slerp");
  const Schedule schedule = make_schedule(plan, 2);
  const Portions portions = make_portions(plan, schedule, 12 * kMiB);
  EXPECT_GE(portions.first_run.size(), 9U) << "there are cuts";
  std::uint64_t twice = 0;
  for (std::uint64_t portion = 0; portion + 1 < portions.first_run.size(); ++portion) {
    std::uint64_t bytes = 0;
    for (const FileRun& run : portions.runs_of(portion)) bytes += run.end - run.begin;
    const std::uint64_t at_end = measured_twice(plan, schedule, portions.runs_of(portion).back());
    EXPECT_LE(at_end, 3 * bytes / 2) << "portion " << portion << ", half of what it reads and writes";
    twice += at_end;
  }
  // A cut anywhere would be in one of the largest tensors as a rule, 22 MB of inputs each.
  EXPECT_LT(twice, (portions.first_run.size() - 1) * 6 * kMiB);
  // Smaller portions than tensors: these stay whole.
  const Portions small = make_portions(plan, schedule, kMiB);
  for (std::uint64_t portion = 0; portion + 1 < small.first_run.size(); ++portion) {
    std::uint64_t bytes = 0;
    for (const FileRun& run : small.runs_of(portion)) bytes += run.end - run.begin;
    EXPECT_LE(measured_twice(plan, schedule, small.runs_of(portion).back()), 3 * bytes / 2) << portion;
  }
}

}  // namespace
}  // namespace moeweld::plan
