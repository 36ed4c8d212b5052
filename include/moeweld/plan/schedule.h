#pragma once
/// MergePlan × world → Schedule: which rank computes which bytes of which file, and which tensors are measured by several ranks.

#include <cstdint>
#include <span>
#include <vector>

#include "moeweld/plan/merge_plan.h"

namespace moeweld::plan {

/// Borders between ranks lie on multiples of this many bytes of a file (or at its ends), so that every file block and digest chunk has one
/// writer.
constexpr std::uint64_t kCutAlignmentBytes = 1024 * 1024;

/// A run of bytes of one output file, header included where it starts at 0.
struct FileRun {
  std::uint32_t file = 0;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  bool operator==(const FileRun&) const = default;
};

template <class Archive>
void serialize(Archive& archive, FileRun& run) {
  archive(run.file, run.begin, run.end);
}

/// Operation `operation` is measured before any item starts because its bytes belong to several ranks, or because only a part of them is
/// left to do. Rank `ranks[i]` measures blocks [first_block[i], first_block[i + 1]).
struct SharedMeasurement {
  std::uint32_t operation = 0;
  std::vector<int> ranks;
  std::vector<std::uint64_t> first_block;  ///< ranks.size() + 1 entries
};

struct Schedule {
  int world_size = 1;
  std::vector<std::vector<FileRun>> runs;       ///< per rank, ascending; ranks without work have none
  std::vector<SharedMeasurement> measurements;  ///< in the one global order in which all ranks take part
};

/// Shares the output in proportion to what each byte costs to read and write. Where it costs little balance, a border is moved to one
/// between tensors that need measuring, so that fewer are shared. Pure and quick: 90,000 operations for 512 ranks in well under a second.
Schedule make_schedule(const MergePlan& plan, int world_size);

/// The same for what an interrupted run has left: `remaining` are ascending runs that begin and end on multiples of kCutAlignmentBytes (or
/// at the end of a file). A tensor that has to be measured and of which only a part remains is measured by all ranks together.
Schedule make_schedule(const MergePlan& plan, int world_size, std::span<const FileRun> remaining);

/// All bytes of all output files.
std::vector<FileRun> whole_files(const MergePlan& plan);

/// For `moeweld plan`.
struct RankLoad {
  std::uint64_t read_bytes = 0;
  std::uint64_t write_bytes = 0;
};
std::vector<RankLoad> rank_loads(const MergePlan& plan, const Schedule& schedule);

}  // namespace moeweld::plan
