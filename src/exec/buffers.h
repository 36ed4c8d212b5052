#pragma once
/// How one rank divides its memory limit: input slots that units are read into, windows that results are assembled in.

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "moeweld/plan/merge_plan.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

struct BufferSizes {
  std::size_t slot_bytes = 0;    ///< one input slot: the inputs of one unit
  std::size_t num_slots = 0;     ///< at most so many are ever allocated
  std::size_t window_bytes = 0;  ///< one output window, a multiple of 1 MiB
  std::size_t num_windows = 0;
  std::uint64_t reserve_bytes = 0;  ///< the plan, statistics of all threads, stacks, the rest of the program

  std::uint64_t total_bytes() const { return slot_bytes * num_slots + window_bytes * num_windows + reserve_bytes; }
};

/// Sizes for a plan under a limit; operations are not applied under a guess where statistics are gathered, since the inputs have to be
/// there when the result is. Throws Error(kUsage) naming the smallest limit that would do.
BufferSizes plan_buffers(const plan::MergePlan& plan, std::uint64_t limit_bytes, int threads, bool gather_statistics);

/// Buffers of one size, allocated when first needed and handed out last in, first out, so that few are hot. Thread-safe.
class BufferPool {
 public:
  BufferPool(std::size_t buffer_bytes, std::size_t max_buffers) : buffer_bytes_(buffer_bytes), max_buffers_(max_buffers) {}

  /// Blocks until one is free; an empty buffer once close() has been called.
  AlignedBuffer acquire();
  void release(AlignedBuffer buffer);
  /// Ends all waiting, now and later.
  void close();

  std::size_t buffer_bytes() const { return buffer_bytes_; }
  std::size_t allocated() const;

 private:
  const std::size_t buffer_bytes_;
  const std::size_t max_buffers_;
  mutable std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<AlignedBuffer> free_;
  std::size_t allocated_ = 0;
  bool closed_ = false;
};

/// Bytes of all sources per element of an operation's result.
std::uint64_t input_bytes_per_element(const plan::Operation& operation);

/// Whether the operation has to be measured before it can be applied.
bool needs_measuring(const plan::Operation& operation);

}  // namespace moeweld::exec
