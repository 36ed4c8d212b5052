#pragma once
/// Which digest chunks of the output files are on stable storage, and what that leaves to do. A value: no files, no ranks.

#include <cstdint>
#include <span>
#include <vector>

#include "exec/window_writer.h"
#include "moeweld/base/digest.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::exec {

class FinishedChunks {
 public:
  /// `file_sizes`: bytes of each output file.
  explicit FinishedChunks(std::span<const std::uint64_t> file_sizes);

  /// Adds a run that begins on a chunk and ends on one or at the end of its file. Throws Error(kInvalidInput) if it does not fit its file,
  /// or its number of digests, or if a chunk is there already with another digest; then nothing is added.
  void add(const RunDigests& run);

  /// What is not there, as few runs as possible, ascending.
  std::vector<plan::FileRun> remaining() const;
  /// What is there, likewise.
  std::vector<RunDigests> finished() const;
  std::uint64_t finished_bytes() const;
  bool is_empty(std::uint32_t file) const;

 private:
  struct File {
    std::uint64_t size_bytes = 0;
    std::vector<bool> is_finished;  // by chunk
    std::vector<Digest> digests;
  };
  /// Calls work(first chunk, end chunk) for each run of chunks that are all finished, or all not.
  template <class Work>
  static void for_each_run(const File& file, bool finished, Work&& work);
  static plan::FileRun run_of(std::uint32_t index, const File& file, std::uint64_t first_chunk, std::uint64_t end_chunk);

  std::vector<File> files_;
};

}  // namespace moeweld::exec
