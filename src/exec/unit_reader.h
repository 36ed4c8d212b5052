#pragma once
/// Reads units ahead of the computation in threads of its own; they are taken in order.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
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
  std::vector<std::uint32_t> with_nan_codes;  ///< operations of the unit that read FP8 codes of NaN
  /// Chunks for a guess, where the unit begins an operation that is applied under one: all sources of a chunk, chunk after chunk.
  std::vector<Piece> sample_chunks;
  std::vector<std::vector<std::byte>> sample;
  const std::byte* sample_at(std::size_t chunk, std::size_t source) const { return sample[first_sample[chunk] + source].data(); }
  std::vector<std::size_t> first_sample;  ///< one entry per chunk, into sample

  std::span<const std::byte* const> sources(std::size_t piece) const {
    return std::span(data).subspan(first_source[piece], first_source[piece + 1] - first_source[piece]);
  }
};

/// One thread copies from the page cache more slowly than two cores can merge.
constexpr std::size_t kReaderThreads = 2;

/// Slots in flight while units are applied as they come, and bytes of them while tensors are held.
constexpr std::size_t kReadAheadUnits = 4;
constexpr std::size_t kReadAheadBytesHeld = std::size_t{48} << 20;

class UnitReader {
 public:
  /// `plan`, `files` and `slots` outlive the reader. It reads on while the slots of units that are not taken yet, loaded or being loaded,
  /// are few enough to stay in the processor's cache, or, where a tensor is held, enough to keep the disk busy while it is applied. With
  /// `in_one_thread` a unit is read when it is taken. Units that begin an operation that is guessed bring its sample.
  UnitReader(const plan::MergePlan& plan, InputFiles& files, BufferPool& slots, bool in_one_thread);
  ~UnitReader();
  UnitReader(const UnitReader&) = delete;
  UnitReader& operator=(const UnitReader&) = delete;

  /// To be read after those that were added before.
  void add(std::vector<Unit> units);
  /// Units that were added and not taken.
  std::size_t num_left() const { return num_added_ - num_taken_; }

  /// The next unit; rethrows what reading it threw. Call once per unit. A reader that is destroyed before its last unit was taken closes
  /// the pool: the pipeline has failed then.
  LoadedUnit take();

 private:
  struct Turn {
    std::size_t index = 0;
    const Unit* unit = nullptr;
    AlignedBuffer slot;  // empty: there is nothing left to do
  };
  void run();
  Turn next_turn();
  LoadedUnit load(const Unit& unit, ViewReader& views, AlignedBuffer slot);
  void load_sample(std::uint32_t operation, ViewReader& views, LoadedUnit& loaded);

  const plan::MergePlan& plan_;
  InputFiles& files_;
  BufferPool& slots_;
  const bool in_one_thread_;
  std::mutex turn_mutex_;  // slots are handed out in the order of the units: else a later one could take an earlier one's last slot
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Unit> units_;                   // a deque: references stay valid as it grows
  std::map<std::size_t, LoadedUnit> ready_;  // by unit
  std::exception_ptr failure_;
  std::size_t next_ = 0;
  std::size_t num_taken_ = 0;
  std::size_t num_added_ = 0;  // for the thread that adds and takes
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace moeweld::exec
