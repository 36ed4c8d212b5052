#pragma once
/// Reads this rank's rows of weights ahead of the computation, in the order they will be asked for, in a thread of its own.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "moeweld/model/transformer.h"
#include "moeweld/storage/storage.h"

namespace moeweld::infer {

/// Input files of a model, opened when first read and checked against what was planned. One thread at a time.
class ModelFiles {
 public:
  ModelFiles(Storage& storage, const std::vector<model::TransformerFile>& files, IoMode mode)
      : storage_(storage), files_(files), mode_(mode) {}
  /// Throws Error(kInvalidInput) if size or modification time are no longer what the plan saw.
  InputFile& open(std::uint32_t file);

 private:
  Storage& storage_;
  const std::vector<model::TransformerFile>& files_;
  IoMode mode_;
  std::map<std::uint32_t, std::unique_ptr<InputFile>> open_;
  std::deque<std::uint32_t> order_;
};

/// Rows of one weight, or the same rows of two (gate and up).
struct RowRange {
  model::Weight weight;
  model::Weight second;  ///< absent: one weight
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint32_t group = 0;  ///< the caller's

  /// In memory.
  std::uint64_t bytes_per_row() const { return weight.value_row_bytes() + (second.is_present() ? second.value_row_bytes() : 0); }
};

/// Part of a RowRange, a whole number of row tiles (or up to the range's end), in memory: block-scaled FP8 as F32, and its weights say so.
struct LoadedRows {
  RowRange rows;
  AlignedBuffer buffer;
  const std::byte* first = nullptr;
  const std::byte* second = nullptr;
};

class WeightStream {
 public:
  /// At most num_buffers of buffer_bytes are allocated. buffer_bytes holds one row tile of every range that will be asked for.
  WeightStream(ModelFiles& files, std::uint64_t buffer_bytes, std::size_t num_buffers);
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  /// Bytes of a buffer that holds num_bytes of rows, wherever they begin in the file.
  static std::uint64_t buffer_bytes_for(std::uint64_t num_bytes);

  void push(RowRange range);
  /// The next rows, in the order of push; rethrows what reading them threw. Give the buffer back with release().
  LoadedRows take();
  void release(LoadedRows rows);
  std::uint64_t read_bytes() const;

 private:
  void run();
  LoadedRows load(const RowRange& range, AlignedBuffer buffer);
  const std::byte* read(model::Weight& weight, std::uint64_t begin, std::uint64_t end, std::span<std::byte>& space);
  const std::byte* read_scaled(model::Weight& weight, std::uint64_t begin, std::uint64_t end, std::span<std::byte>& space);

  ModelFiles& files_;
  const std::uint64_t buffer_bytes_;
  const std::size_t num_buffers_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<RowRange> wanted_;
  std::deque<LoadedRows> ready_;
  std::vector<AlignedBuffer> free_;
  std::size_t num_allocated_ = 0;
  std::vector<std::byte> codes_;  // of the reading thread
  std::uint64_t read_bytes_ = 0;
  std::exception_ptr failure_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace moeweld::infer
