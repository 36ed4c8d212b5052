#include "moeweld/plan/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "moeweld/base/checked.h"
#include "moeweld/merge/method.h"

namespace moeweld::plan {

namespace {

/// A border may move this far from where the cost says, as a fraction of one rank's share, to avoid measuring a tensor on two ranks.
constexpr double kBorderTolerance = 0.03;

/// One operation on the line of all output bytes, with what it costs.
struct Stretch {
  Destination place;
  std::uint64_t input_bytes = 0;
  double cost_begin = 0;  // cost of everything before
  double cost = 0;
  bool measured = false;
};

bool needs_measuring(const Operation& operation) {
  if (operation.kind != Operation::Kind::kMerge) return false;
  const merge::MethodRow& method = merge::method_table()[operation.method];
  return method.next_phase != nullptr && method.next_phase(operation.task, {}).has_value();
}

std::uint64_t source_bytes(const Operation& operation) {
  std::uint64_t sum = 0;
  for (const SourceView& source : operation.sources) sum += read_bytes(source);
  return sum;
}

std::vector<Stretch> make_stretches(const MergePlan& plan) {
  std::vector<Stretch> result;
  result.reserve(plan.operations.size());
  double cost = 0;
  for (const Operation& operation : plan.operations) {
    Stretch stretch;
    stretch.place = destination(plan, operation);
    stretch.input_bytes = source_bytes(operation);
    stretch.cost_begin = cost;
    stretch.cost = static_cast<double>(stretch.input_bytes + stretch.place.size_bytes);
    stretch.measured = needs_measuring(operation);
    cost += stretch.cost;
    result.push_back(stretch);
  }
  return result;
}

/// A position on the line of all output bytes.
struct Border {
  std::uint32_t file = 0;
  std::uint64_t offset = 0;
  auto operator<=>(const Border&) const = default;
};

/// The allowed border nearest to `offset` within file `file`: a multiple of the cut alignment, or the end of the file.
Border nearest_border(const MergePlan& plan, std::uint32_t file, std::uint64_t offset) {
  const std::uint64_t size = plan.output_files[file].size_bytes;
  const std::uint64_t low = round_down(offset, kCutAlignmentBytes);
  const std::uint64_t high = std::min(low + kCutAlignmentBytes, size);
  const std::uint64_t nearest = offset - low <= high - offset ? low : high;
  if (nearest == size) return {file + 1, 0};
  return {file, nearest};
}

/// Bytes of inputs that are read twice because `border` lies inside a measured operation.
std::uint64_t sharing_cost(const Stretch& stretch, const Border& border) {
  const bool inside = border.file == stretch.place.file && border.offset > stretch.place.begin &&
                      border.offset < stretch.place.begin + stretch.place.size_bytes;
  return inside && stretch.measured ? stretch.input_bytes : 0;
}

Border choose_border(const MergePlan& plan, const std::vector<Stretch>& stretches, double ideal_cost, double tolerance) {
  const auto first = std::partition_point(stretches.begin(), stretches.end(), [&](const Stretch& stretch) {
    return stretch.cost_begin + stretch.cost <= ideal_cost - tolerance;
  });
  Border best;
  std::uint64_t best_sharing = std::numeric_limits<std::uint64_t>::max();
  double best_distance = std::numeric_limits<double>::infinity();
  for (auto stretch = first; stretch != stretches.end() && stretch->cost_begin <= ideal_cost + tolerance; ++stretch) {
    const double fraction = stretch->cost > 0 ? std::clamp((ideal_cost - stretch->cost_begin) / stretch->cost, 0.0, 1.0) : 0.0;
    const auto offset = stretch->place.begin + static_cast<std::uint64_t>(fraction * static_cast<double>(stretch->place.size_bytes));
    const Border border = nearest_border(plan, stretch->place.file, offset);
    // An aligned border near a tensor's edge may lie in its neighbour: both are asked.
    std::uint64_t sharing = sharing_cost(*stretch, border);
    if (stretch != stretches.begin()) sharing += sharing_cost(*std::prev(stretch), border);
    if (std::next(stretch) != stretches.end()) sharing += sharing_cost(*std::next(stretch), border);
    const double distance = std::abs(stretch->cost_begin + fraction * stretch->cost - ideal_cost);
    if (sharing < best_sharing || (sharing == best_sharing && distance < best_distance)) {
      best = border;
      best_sharing = sharing;
      best_distance = distance;
    }
  }
  return best;
}

void append_runs(const MergePlan& plan, Border begin, Border end, std::vector<FileRun>& runs) {
  while (begin < end) {
    const std::uint64_t size = plan.output_files[begin.file].size_bytes;
    const std::uint64_t stop = begin.file == end.file ? end.offset : size;
    if (stop > begin.offset) runs.push_back({begin.file, begin.offset, stop});
    begin = {begin.file + 1, 0};
  }
}

/// Ranks whose runs touch the operation, with the blocks each measures: those whose first element it writes.
SharedMeasurement share_measurement(const MergePlan& plan, const Schedule& schedule, std::uint32_t index, const Stretch& stretch,
                                    int first_rank) {
  const Operation& operation = plan.operations[index];
  const std::uint64_t element_size = size_bytes(operation.task.output_dtype);
  const std::uint64_t block_bytes = merge::kBlockElements * element_size;
  const std::uint64_t blocks = merge::num_blocks(operation.task.elements());
  const std::uint64_t end = stretch.place.begin + stretch.place.size_bytes;
  SharedMeasurement result;
  result.operation = index;
  for (int rank = first_rank; rank < schedule.world_size; ++rank) {
    for (const FileRun& run : schedule.runs[rank]) {
      if (run.file != stretch.place.file || run.end <= stretch.place.begin || run.begin >= end) continue;
      const std::uint64_t from =
          run.begin <= stretch.place.begin ? 0 : round_up(run.begin - stretch.place.begin, block_bytes) / block_bytes;
      result.ranks.push_back(rank);
      result.first_block.push_back(std::min(from, blocks));
    }
    const auto& runs = schedule.runs[rank];
    if (!runs.empty() && (runs.front().file > stretch.place.file || (runs.front().file == stretch.place.file && runs.front().begin >= end)))
      break;
  }
  result.first_block.push_back(blocks);
  return result;
}

}  // namespace

Schedule make_schedule(const MergePlan& plan, int world_size) {
  Schedule schedule;
  schedule.world_size = world_size;
  schedule.runs.resize(static_cast<std::size_t>(world_size));
  if (plan.output_files.empty()) return schedule;

  const std::vector<Stretch> stretches = make_stretches(plan);
  const double total = stretches.empty() ? 0 : stretches.back().cost_begin + stretches.back().cost;
  const double share = total / world_size;
  const Border end{static_cast<std::uint32_t>(plan.output_files.size()), 0};
  Border begin{};
  for (int rank = 0; rank < world_size; ++rank) {
    Border stop = end;
    if (rank + 1 < world_size) stop = std::max(begin, choose_border(plan, stretches, share * (rank + 1), share * kBorderTolerance));
    append_runs(plan, begin, stop, schedule.runs[static_cast<std::size_t>(rank)]);
    begin = stop;
  }

  // Walk operations and runs together: an operation whose last byte is beyond the run that holds its first is shared.
  int rank = 0;
  std::size_t run = 0;
  const auto holds = [&](const Destination& place) {
    const auto& runs = schedule.runs[static_cast<std::size_t>(rank)];
    return run < runs.size() && runs[run].file == place.file && place.begin >= runs[run].begin && place.begin < runs[run].end;
  };
  for (std::uint32_t index = 0; index < stretches.size(); ++index) {
    const Stretch& stretch = stretches[index];
    if (!stretch.measured || stretch.place.size_bytes == 0) continue;
    while (rank < world_size && !holds(stretch.place)) {
      if (++run >= schedule.runs[static_cast<std::size_t>(rank)].size()) {
        run = 0;
        ++rank;
      }
    }
    if (rank == world_size) throw Error(ErrorCode::kInternal, "the schedule does not cover every tensor", {}, plan.operations[index].name);
    if (stretch.place.begin + stretch.place.size_bytes > schedule.runs[static_cast<std::size_t>(rank)][run].end) {
      schedule.measurements.push_back(share_measurement(plan, schedule, index, stretch, rank));
    }
  }
  return schedule;
}

std::vector<RankLoad> rank_loads(const MergePlan& plan, const Schedule& schedule) {
  std::vector<RankLoad> loads(static_cast<std::size_t>(schedule.world_size));
  std::vector<Stretch> stretches = make_stretches(plan);
  for (int rank = 0; rank < schedule.world_size; ++rank) {
    RankLoad& load = loads[static_cast<std::size_t>(rank)];
    for (const FileRun& run : schedule.runs[static_cast<std::size_t>(rank)]) {
      load.write_bytes += run.end - run.begin;
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
