#pragma once
/// What one rank reads, in order: its share of the output cut into units that fit an input slot.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::exec {

/// A run of elements of one operation.
struct Piece {
  std::uint32_t operation = 0;
  std::uint64_t first_element = 0;
  std::uint64_t num_elements = 0;
  bool is_last = false;  ///< of the operation on this rank
  /// Of operations that are computed in bands of rows: the elements of the result that the bands give this rank to write.
  std::uint64_t first_result = 0;
  std::uint64_t num_results = 0;
  bool is_remembered = false;  ///< scales of bands whose codes this rank has computed by then: nothing is read
  bool is_guessed = false;     ///< of an operation that is applied under a guess
  bool is_held = false;        ///< until all of the operation is there and measured
  bool only_measures = false;  ///< nothing is computed from it: the operation is read once more for that
};

/// Pieces whose inputs are read together into one slot.
using Unit = std::vector<Piece>;

/// What a piece of the operation reads: those of its codes for block scales.
const std::vector<plan::SourceView>& sources_of(const plan::MergePlan& plan, std::uint32_t operation);

/// Results of one operation that lie in a run of its output file.
struct ElementRange {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
};
ElementRange elements_in(const plan::MergePlan& plan, const plan::Operation& operation, const plan::FileRun& run);

/// Cuts the operations in `runs` (in output order) into units of at most `slot_bytes` of input. Cuts inside an operation lie on multiples
/// of its blocks when it has to be measured, else on multiples of 2^14 elements; pieces of banded operations are whole bands. The first run
/// may continue one that has been cut before: then that began at `stretch_begin`.
std::vector<Unit> cut_units(const plan::MergePlan& plan, std::span<const plan::FileRun> runs, std::size_t slot_bytes,
                            std::optional<std::uint64_t> stretch_begin = {});

/// The first operation that has bytes in the run or after it.
std::uint32_t first_operation_in(const plan::MergePlan& plan, const plan::FileRun& run);

/// Cuts blocks [first_block, end_block) of one operation.
std::vector<Unit> cut_blocks(const plan::MergePlan& plan, std::uint32_t operation, std::uint64_t first_block, std::uint64_t end_block,
                             std::size_t slot_bytes);

}  // namespace moeweld::exec
