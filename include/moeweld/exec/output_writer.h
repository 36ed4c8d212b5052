#pragma once
/// Where a rank's finished windows go when its own threads do not write them: MPI-IO, one writing rank per node, HDF5.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/base/peers.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::exec {

/// Bytes of one output file. They begin on a multiple of 1 MiB, or where a run begins.
struct OutputPiece {
  std::uint32_t file = 0;  ///< index into MergePlan::output_files
  std::uint64_t offset = 0;
  std::span<const std::byte> bytes;
};

/// All methods are called from the pipeline's thread, the one that calls MPI.
///
/// A rank calls open() once, write() for each of its windows, finish_writing() once, then close() or abandon(). The files have their sizes
/// and their space before open(), but for those that a writer makes itself (PlannedOutputFile::own_metadata_bytes).
class OutputWriter {
 public:
  virtual ~OutputWriter() = default;

  /// `directory`: where the plan's output files are; plan and schedule outlive the writer's work. Collective. Throws the same Error on
  /// every rank.
  virtual void open(const std::string& directory, const plan::MergePlan& plan, const plan::Schedule& schedule) = 0;

  /// The memory may be used again when this returns. Writers that are collective do a round here, in which every rank takes part: by its
  /// own write(), or within finish_writing(). When another rank has failed this throws that rank's Error.
  virtual void write(const OutputPiece& piece) = 0;

  /// This rank has handed over its last window, or (with problems) has failed and will not. Takes part in what others still write. Throws
  /// the Error that all ranks throw if any has failed, where the writer is collective.
  virtual void finish_writing(const ProblemList& problems) = 0;

  /// Everything is on stable storage when this returns. Collective. Throws the same Error on every rank.
  virtual void close() = 0;

  /// After a failure that all ranks know: gives back what is open. Collective.
  virtual void abandon() noexcept = 0;
};

/// A writer whose ranks write in rounds. A rank that fails says so in the next round, and every rank throws its Error there, so that none
/// waits for one that will not come.
class RoundWriter : public OutputWriter {
 public:
  explicit RoundWriter(Peers& peers) : peers_(peers) {}
  void write(const OutputPiece& piece) final;
  void finish_writing(const ProblemList& problems) final;

 protected:
  /// What one rank writes in a round; size 0: nothing.
  struct Part {
    std::uint32_t file = 0;
    std::uint64_t offset = 0;
    std::uint64_t size_bytes = 0;
  };
  /// One round: every rank knows what all write, in rank order. `mine` is null on a rank that has nothing to write. Collective; an Error
  /// that only this rank throws reaches the others in the next round.
  virtual void write_round(std::span<const Part> parts, const OutputPiece* mine) = 0;

  Peers& peers() { return peers_; }

 private:
  enum class State : std::uint8_t { kWriting, kDone, kFailed };
  /// Returns whether any rank was still writing.
  bool round(State state, const OutputPiece* mine);

  Peers& peers_;
  ProblemList problems_;
  bool has_ended_ = false;  ///< all ranks have thrown: nobody comes to another round
};

}  // namespace moeweld::exec
