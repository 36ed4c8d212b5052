#include "plan/output_line.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "moeweld/base/checked.h"
#include "moeweld/merge/method.h"

namespace moeweld::plan {

namespace {

/// The allowed border nearest to `offset` within file `file`: a multiple of the cut alignment, or the end of the file.
Border nearest_border(const MergePlan& plan, std::uint32_t file, std::uint64_t offset) {
  const std::uint64_t size = plan.output_files[file].size_bytes;
  const std::uint64_t low = round_down(offset, kCutAlignmentBytes);
  const std::uint64_t high = std::min(low + kCutAlignmentBytes, size);
  const std::uint64_t nearest = offset - low <= high - offset ? low : high;
  if (nearest == size) return {file + 1, 0};
  return {file, nearest};
}

/// The stretch that holds the byte at `border`, or the next one.
std::span<const Stretch>::iterator stretch_at(std::span<const Stretch> stretches, const Border& border) {
  return std::partition_point(stretches.begin(), stretches.end(), [&](const Stretch& stretch) {
    return Border{stretch.place.file, stretch.place.begin + stretch.place.size_bytes} <= border;
  });
}

/// Bytes of inputs that are read twice because `border` lies inside a measured operation.
std::uint64_t sharing_bytes(std::span<const Stretch> stretches, const Border& border) {
  const auto stretch = stretch_at(stretches, border);
  if (stretch == stretches.end() || Border{stretch->place.file, stretch->place.begin} >= border) return 0;
  return stretch->measured ? stretch->input_bytes : 0;
}

}  // namespace

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

std::vector<Stretch> make_stretches(const MergePlan& plan, std::span<const FileRun> remaining) {
  std::vector<Stretch> result;
  result.reserve(plan.operations.size());
  double cost = 0;
  auto first = remaining.begin();
  for (std::uint32_t index = 0; index < plan.operations.size(); ++index) {
    const Operation& operation = plan.operations[index];
    const Destination place = destination(plan, operation);
    if (place.size_bytes == 0) continue;
    const std::uint64_t end = place.begin + place.size_bytes;
    while (first != remaining.end() && (first->file < place.file || (first->file == place.file && first->end <= place.begin))) ++first;
    const std::uint64_t input_bytes = source_bytes(operation);
    const bool measured = needs_measuring(operation);
    for (auto run = first; run != remaining.end() && run->file == place.file && run->begin < end; ++run) {
      Stretch stretch;
      stretch.operation = index;
      stretch.place.file = place.file;
      stretch.place.begin = std::max(place.begin, run->begin);
      stretch.place.size_bytes = std::min(end, run->end) - stretch.place.begin;
      const bool whole = stretch.place.size_bytes == place.size_bytes;
      stretch.input_bytes =
          whole ? input_bytes
                : static_cast<std::uint64_t>(static_cast<double>(input_bytes) * static_cast<double>(stretch.place.size_bytes) /
                                             static_cast<double>(place.size_bytes));
      stretch.cost_begin = cost;
      stretch.cost = static_cast<double>(stretch.input_bytes + stretch.place.size_bytes * plan.output_files[place.file].num_places());
      // A part is measured by all ranks in any case.
      stretch.measured = measured && whole;
      cost += stretch.cost;
      result.push_back(stretch);
    }
  }
  return result;
}

Cut choose_cut(const MergePlan& plan, std::span<const Stretch> stretches, double ideal_cost, double tolerance) {
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
    // An aligned border near a tensor's edge may lie in another one.
    const std::uint64_t sharing = sharing_bytes(stretches, border);
    const double distance = std::abs(stretch->cost_begin + fraction * stretch->cost - ideal_cost);
    if (sharing < best_sharing || (sharing == best_sharing && distance < best_distance)) {
      best = border;
      best_sharing = sharing;
      best_distance = distance;
    }
  }
  return {best, best_sharing};
}

double cost_before(std::span<const Stretch> stretches, Border border) {
  const auto next = stretch_at(stretches, border);
  if (next == stretches.end()) return stretches.empty() ? 0 : stretches.back().cost_begin + stretches.back().cost;
  if (next->place.file != border.file || next->place.begin >= border.offset) return next->cost_begin;
  return next->cost_begin +
         next->cost * static_cast<double>(border.offset - next->place.begin) / static_cast<double>(next->place.size_bytes);
}

void append_runs(std::span<const FileRun> remaining, Border begin, Border end, std::vector<FileRun>& runs) {
  auto run = std::partition_point(remaining.begin(), remaining.end(), [&](const FileRun& candidate) {
    return Border{candidate.file, candidate.end} <= begin;
  });
  for (; run != remaining.end() && Border{run->file, run->begin} < end; ++run) {
    FileRun part = *run;
    if (run->file == begin.file) part.begin = std::max(part.begin, begin.offset);
    if (run->file == end.file) part.end = std::min(part.end, end.offset);
    if (part.begin < part.end) runs.push_back(part);
  }
}

}  // namespace moeweld::plan
