#include "moeweld/plan/portions.h"

#include <algorithm>
#include <set>

#include "plan/output_line.h"

namespace moeweld::plan {

namespace {

/// What a rank ten times slower than the rest has in hand when they have taken all else is then a few percent of the work.
constexpr std::uint64_t kPortionsPerRank = 32;
/// Some tens of milliseconds: much longer than asking for the next one takes.
constexpr std::uint64_t kSmallestPortionBytes = 16 * kCutAlignmentBytes;
constexpr std::uint64_t kLargestPortionBytes = 256 * kCutAlignmentBytes;
/// A border may move this far, in portions, to one where less is measured twice.
constexpr double kPortionTolerance = 0.5;
/// And is left out if what is measured twice is more than this part of the portion's cost.
constexpr double kMostSharing = 0.5;
/// Less than this part of it is nothing.
constexpr double kFreeSharing = 0.02;

}  // namespace

Portions make_portions(const MergePlan& plan, const Schedule& schedule, std::uint64_t portion_bytes) {
  std::vector<FileRun> all;
  for (const std::vector<FileRun>& runs : schedule.runs) all.insert(all.end(), runs.begin(), runs.end());
  std::uint64_t total_bytes = 0;
  for (const FileRun& run : all) total_bytes += run.end - run.begin;
  std::vector<Stretch> stretches = make_stretches(plan, all);
  std::set<std::uint32_t> shared;
  for (const SharedMeasurement& measurement : schedule.measurements) shared.insert(measurement.operation);
  for (Stretch& stretch : stretches) {
    if (shared.contains(stretch.operation)) stretch.measured = false;  // decided by the time portions are done
  }
  const std::uint64_t ranks = schedule.runs.size();
  if (portion_bytes == 0) {
    portion_bytes =
        std::clamp(total_bytes / (std::max<std::uint64_t>(1, ranks) * kPortionsPerRank), kSmallestPortionBytes, kLargestPortionBytes);
  }
  const double total_cost = stretches.empty() ? 0 : stretches.back().cost_begin + stretches.back().cost;
  const double step = total_cost * static_cast<double>(portion_bytes) / static_cast<double>(std::max<std::uint64_t>(1, total_bytes));

  Portions portions;
  portions.first_portion.push_back(0);
  const auto add = [&](std::span<const FileRun> runs, Border begin, Border end) {
    portions.first_run.push_back(portions.runs.size());
    append_runs(runs, begin, end, portions.runs);
    if (portions.runs.size() == portions.first_run.back()) portions.first_run.pop_back();  // between two runs there is nothing
  };
  for (const std::vector<FileRun>& runs : schedule.runs) {
    if (!runs.empty()) {
      Border begin{runs.front().file, runs.front().begin};
      const Border end{runs.back().file, runs.back().end};
      const double end_cost = cost_before(stretches, end);
      double begin_cost = cost_before(stretches, begin);
      double ideal = begin_cost + step;
      while (step > 0 && ideal + step * kPortionTolerance < end_cost) {
        const Cut cut = choose_cut(plan, stretches, ideal, step * kPortionTolerance);
        const double cut_cost = cost_before(stretches, cut.border);
        ideal += step;
        if (cut.border <= begin || cut.border >= end) continue;
        if (static_cast<double>(cut.sharing_bytes) > kMostSharing * (cut_cost - begin_cost)) continue;
        if (static_cast<double>(cut.sharing_bytes) > kFreeSharing * step) portions.has_free_borders = false;
        add(runs, begin, cut.border);
        begin = cut.border;
        begin_cost = cut_cost;
        ideal = begin_cost + step;
      }
      add(runs, begin, end);
    }
    portions.first_portion.push_back(portions.first_run.size());
  }
  portions.first_run.push_back(portions.runs.size());
  return portions;
}

}  // namespace moeweld::plan
