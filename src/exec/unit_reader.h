#pragma once
/// Reads units ahead of the computation, in order, in a thread of its own.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "exec/buffers.h"
#include "exec/input_files.h"
#include "exec/units.h"
#include "exec/view_reader.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

/// A unit with its data. Pointers point into `slot`.
struct LoadedUnit {
  Unit pieces;
  AlignedBuffer slot;
  std::vector<const std::byte*> data;     ///< all pieces' sources, piece after piece
  std::vector<std::size_t> first_source;  ///< pieces.size() + 1 entries into data
  std::uint64_t read_bytes = 0;

  std::span<const std::byte* const> sources(std::size_t piece) const {
    return std::span(data).subspan(first_source[piece], first_source[piece + 1] - first_source[piece]);
  }
};

class UnitReader {
 public:
  /// `units`, `plan`, `files` and `slots` outlive the reader. At most `read_ahead` units wait, loaded, to be taken.
  UnitReader(const plan::MergePlan& plan, std::span<const Unit> units, InputFiles& files, BufferPool& slots, std::size_t read_ahead);
  ~UnitReader();
  UnitReader(const UnitReader&) = delete;
  UnitReader& operator=(const UnitReader&) = delete;

  /// The next unit; rethrows what reading it threw. Call once per unit. A reader that is destroyed before its last unit was taken closes
  /// the pool: the pipeline has failed then.
  LoadedUnit take();

 private:
  void run();
  LoadedUnit load(const Unit& unit, AlignedBuffer slot);

  const plan::MergePlan& plan_;
  const std::span<const Unit> units_;
  InputFiles& files_;
  ViewReader views_;
  BufferPool& slots_;
  const std::size_t read_ahead_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<LoadedUnit> ready_;
  std::exception_ptr failure_;
  std::size_t num_taken_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace moeweld::exec
