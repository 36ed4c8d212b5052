#pragma once
/// All output bytes as one line with what they cost to make, and the places where it may be cut.

#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::plan {

/// Whether the operation has to be measured before it can be applied.
bool needs_measuring(const Operation& operation);

/// Bytes of all its inputs.
std::uint64_t source_bytes(const Operation& operation);

/// One operation, or what remains of it without a gap, on the line of all output bytes, with what it costs.
struct Stretch {
  std::uint32_t operation = 0;
  Destination place;
  std::uint64_t input_bytes = 0;
  double cost_begin = 0;  // cost of everything before
  double cost = 0;
  bool measured = false;
};

/// `remaining`: ascending runs.
std::vector<Stretch> make_stretches(const MergePlan& plan, std::span<const FileRun> remaining);

/// A position on the line of all output bytes.
struct Border {
  std::uint32_t file = 0;
  std::uint64_t offset = 0;
  auto operator<=>(const Border&) const = default;
};

/// A border and the bytes of inputs that are read twice if what lies on its two sides is done apart.
struct Cut {
  Border border;
  std::uint64_t sharing_bytes = 0;
};

/// The cheapest allowed border (a multiple of kCutAlignmentBytes or the end of a file) whose cost is within `tolerance` of `ideal_cost`,
/// the nearest of equals.
Cut choose_cut(const MergePlan& plan, std::span<const Stretch> stretches, double ideal_cost, double tolerance);

/// Cost of everything before `border`.
double cost_before(std::span<const Stretch> stretches, Border border);

/// Appends what of `remaining` lies in [begin, end).
void append_runs(std::span<const FileRun> remaining, Border begin, Border end, std::vector<FileRun>& runs);

}  // namespace moeweld::plan
