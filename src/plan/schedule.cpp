#include "moeweld/plan/schedule.h"

#include <algorithm>

#include "moeweld/base/checked.h"
#include "moeweld/merge/method.h"
#include "plan/output_line.h"

namespace moeweld::plan {

namespace {

/// A border may move this far from where the cost says, as a fraction of one rank's share, to avoid measuring a tensor on two ranks.
constexpr double kBorderTolerance = 0.03;

/// Runs of one rank, in the order of all.
struct RankRun {
  int rank = 0;
  FileRun run;
};

/// Blocks of an operation by those who write their first element.
SharedMeasurement share_by_writer(std::uint32_t index, const Operation& operation, const Destination& place,
                                  std::span<const RankRun> runs) {
  const std::uint64_t block_bytes = merge::kBlockElements * size_bytes(operation.result_dtype());
  const std::uint64_t blocks = merge::num_blocks(operation.task.elements());
  SharedMeasurement result;
  result.operation = index;
  for (const RankRun& run : runs) {
    const std::uint64_t from = run.run.begin <= place.begin ? 0 : round_up(run.run.begin - place.begin, block_bytes) / block_bytes;
    result.ranks.push_back(run.rank);
    result.first_block.push_back(std::min(from, blocks));
  }
  result.first_block.push_back(blocks);
  return result;
}

SharedMeasurement share_evenly(std::uint32_t index, const Operation& operation, int world_size) {
  const std::uint64_t blocks = merge::num_blocks(operation.task.elements());
  const auto ranks = static_cast<std::uint64_t>(world_size);
  SharedMeasurement result;
  result.operation = index;
  for (std::uint64_t rank = 0; rank < std::min(ranks, blocks); ++rank) {
    result.ranks.push_back(static_cast<int>(rank));
    result.first_block.push_back(blocks * rank / std::min(ranks, blocks));
  }
  result.first_block.push_back(blocks);
  return result;
}

void find_shared(const MergePlan& plan, Schedule& schedule) {
  std::vector<RankRun> runs;
  for (int rank = 0; rank < schedule.world_size; ++rank) {
    for (const FileRun& run : schedule.runs[static_cast<std::size_t>(rank)]) runs.push_back({rank, run});
  }
  auto first = runs.begin();
  for (std::uint32_t index = 0; index < plan.operations.size(); ++index) {
    const Operation& operation = plan.operations[index];
    const Destination place = destination(plan, operation);
    if (place.size_bytes == 0 || !needs_measuring(operation)) continue;
    const std::uint64_t end = place.begin + place.size_bytes;
    while (first != runs.end() && (first->run.file < place.file || (first->run.file == place.file && first->run.end <= place.begin))) {
      ++first;
    }
    auto last = first;
    std::uint64_t covered = 0;
    for (; last != runs.end() && last->run.file == place.file && last->run.begin < end; ++last) {
      covered += std::min(end, last->run.end) - std::max(place.begin, last->run.begin);
    }
    if (covered == 0 || (covered == place.size_bytes && last - first == 1)) continue;
    schedule.measurements.push_back(covered == place.size_bytes ? share_by_writer(index, operation, place, std::span(first, last))
                                                                : share_evenly(index, operation, schedule.world_size));
  }
}

}  // namespace

std::vector<FileRun> whole_files(const MergePlan& plan) {
  std::vector<FileRun> runs;
  for (std::uint32_t file = 0; file < plan.output_files.size(); ++file) {
    if (plan.output_files[file].size_bytes != 0) runs.push_back({file, 0, plan.output_files[file].size_bytes});
  }
  return runs;
}

Schedule make_schedule(const MergePlan& plan, int world_size) { return make_schedule(plan, world_size, whole_files(plan)); }

Schedule make_schedule(const MergePlan& plan, int world_size, std::span<const FileRun> remaining) {
  Schedule schedule;
  schedule.world_size = world_size;
  schedule.runs.resize(static_cast<std::size_t>(world_size));
  if (plan.output_files.empty()) return schedule;

  const std::vector<Stretch> stretches = make_stretches(plan, remaining);
  const double total = stretches.empty() ? 0 : stretches.back().cost_begin + stretches.back().cost;
  const double share = total / world_size;
  const Border end{static_cast<std::uint32_t>(plan.output_files.size()), 0};
  Border begin{};
  for (int rank = 0; rank < world_size; ++rank) {
    Border stop = end;
    if (rank + 1 < world_size) stop = std::max(begin, choose_cut(plan, stretches, share * (rank + 1), share * kBorderTolerance).border);
    append_runs(remaining, begin, stop, schedule.runs[static_cast<std::size_t>(rank)]);
    begin = stop;
  }
  find_shared(plan, schedule);
  return schedule;
}

std::vector<RankLoad> rank_loads(const MergePlan& plan, const Schedule& schedule) {
  std::vector<RankLoad> loads(static_cast<std::size_t>(schedule.world_size));
  const std::vector<Stretch> stretches = make_stretches(plan, whole_files(plan));
  for (int rank = 0; rank < schedule.world_size; ++rank) {
    RankLoad& load = loads[static_cast<std::size_t>(rank)];
    for (const FileRun& run : schedule.runs[static_cast<std::size_t>(rank)]) {
      load.write_bytes += (run.end - run.begin) * plan.output_files[run.file].num_places();
      auto stretch = std::partition_point(stretches.begin(), stretches.end(), [&](const Stretch& candidate) {
        return candidate.place.file < run.file ||
               (candidate.place.file == run.file && candidate.place.begin + candidate.place.size_bytes <= run.begin);
      });
      for (; stretch != stretches.end() && stretch->place.file == run.file && stretch->place.begin < run.end; ++stretch) {
        if (stretch->place.size_bytes == 0) continue;
        const std::uint64_t from = std::max(run.begin, stretch->place.begin);
        const std::uint64_t to = std::min(run.end, stretch->place.begin + stretch->place.size_bytes);
        load.read_bytes += static_cast<std::uint64_t>(static_cast<double>(stretch->input_bytes) * static_cast<double>(to - from) /
                                                      static_cast<double>(stretch->place.size_bytes));
      }
    }
  }
  for (const SharedMeasurement& measurement : schedule.measurements) {
    const Operation& operation = plan.operations[measurement.operation];
    const std::uint64_t bytes_per_element = source_bytes(operation) / std::max<std::uint64_t>(1, operation.task.elements());
    for (std::size_t i = 0; i < measurement.ranks.size(); ++i) {
      const std::uint64_t first = measurement.first_block[i] * merge::kBlockElements;
      const std::uint64_t last = std::min(measurement.first_block[i + 1] * merge::kBlockElements, operation.task.elements());
      if (last > first) loads[static_cast<std::size_t>(measurement.ranks[i])].read_bytes += (last - first) * bytes_per_element;
    }
  }
  return loads;
}

}  // namespace moeweld::plan
