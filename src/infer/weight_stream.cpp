#include "infer/weight_stream.h"

#include <algorithm>

#include "moeweld/base/checked.h"
#include "moeweld/base/error.h"
#include "moeweld/base/trace.h"
#include "moeweld/infer/forward.h"

namespace moeweld::infer {
namespace {

constexpr std::size_t kMostOpenFiles = 32;

}  // namespace

InputFile& ModelFiles::open(std::uint32_t file) {
  if (const auto found = open_.find(file); found != open_.end()) return *found->second;
  if (open_.size() >= kMostOpenFiles) {
    open_.erase(order_.front());
    order_.pop_front();
  }
  const model::TransformerFile& planned = files_.at(file);
  std::unique_ptr<InputFile> opened = storage_.open_input(planned.path, mode_);
  if (opened->identity() != planned.identity) {
    throw Error(ErrorCode::kInvalidInput, "has changed since its header was read; nobody may write to a model while it is being read",
                planned.path);
  }
  order_.push_back(file);
  return *open_.emplace(file, std::move(opened)).first->second;
}

WeightStream::WeightStream(ModelFiles& files, std::uint64_t buffer_bytes, std::size_t num_buffers)
    : files_(files), buffer_bytes_(buffer_bytes), num_buffers_(num_buffers), thread_([this] {
        trace::name_thread("weight reader");
        run();
      }) {}

WeightStream::~WeightStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::uint64_t WeightStream::buffer_bytes_for(std::uint64_t num_bytes) {
  // Two ranges at most, each read from the block it begins in to the block it ends in.
  return round_up(num_bytes, kDirectAlignment) + 4 * kDirectAlignment;
}

void WeightStream::push(RowRange range) {
  if (range.begin == range.end) return;
  {
    const std::lock_guard lock(mutex_);
    wanted_.push_back(range);
  }
  changed_.notify_all();
}

LoadedRows WeightStream::take() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return failure_ || !ready_.empty() || (wanted_.empty() && stop_); });
  if (ready_.empty()) {
    if (failure_) std::rethrow_exception(failure_);
    throw Error(ErrorCode::kInternal, "weights were asked for that nobody reads");
  }
  LoadedRows rows = std::move(ready_.front());
  ready_.pop_front();
  return rows;
}

void WeightStream::release(LoadedRows rows) {
  {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(rows.buffer));
  }
  changed_.notify_all();
}

std::uint64_t WeightStream::read_bytes() const {
  const std::lock_guard lock(mutex_);
  return read_bytes_;
}

void WeightStream::run() {
  try {
    while (true) {
      RowRange part;
      AlignedBuffer buffer;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stop_ || (!wanted_.empty() && (!free_.empty() || num_allocated_ < num_buffers_)); });
        if (stop_) return;
        part = wanted_.front();
        const std::uint64_t tile_bytes = kRowTile * part.bytes_per_row();
        const std::uint64_t space = buffer_bytes_ - 5 * kDirectAlignment;
        const std::uint64_t num_tiles = std::max<std::uint64_t>(1, space / tile_bytes);
        part.end = std::min(part.end, part.begin + num_tiles * kRowTile);
        if (part.end == wanted_.front().end) {
          wanted_.pop_front();
        } else {
          wanted_.front().begin = part.end;
        }
        if (!free_.empty()) {
          buffer = std::move(free_.back());
          free_.pop_back();
        } else {
          ++num_allocated_;
        }
      }
      if (buffer.size() == 0) buffer = AlignedBuffer(buffer_bytes_);
      LoadedRows loaded = load(part, std::move(buffer));
      {
        const std::lock_guard lock(mutex_);
        read_bytes_ += (part.end - part.begin) * part.bytes_per_row();
        ready_.push_back(std::move(loaded));
      }
      changed_.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
    changed_.notify_all();
  }
}

LoadedRows WeightStream::load(const RowRange& range, AlignedBuffer buffer) {
  LoadedRows loaded;
  loaded.rows = range;
  loaded.buffer = std::move(buffer);
  std::span<std::byte> space = loaded.buffer.span();
  loaded.first = read(range.weight, range.begin, range.end, space);
  if (range.second.is_present()) loaded.second = read(range.second, range.begin, range.end, space);
  return loaded;
}

const std::byte* WeightStream::read(const model::Weight& weight, std::uint64_t begin, std::uint64_t end, std::span<std::byte>& space) {
  const std::uint64_t first = weight.begin + begin * weight.row_bytes();
  const std::uint64_t last = weight.begin + end * weight.row_bytes();
  const std::uint64_t aligned = round_down(first, kDirectAlignment);
  const std::uint64_t length = round_up(last, kDirectAlignment) - aligned;
  if (length > space.size()) throw Error(ErrorCode::kInternal, "a row tile is larger than the buffer for it");
  files_.open(weight.file).read(aligned, space.first(length));
  const std::byte* data = space.data() + (first - aligned);
  space = space.subspan(length);
  return data;
}

}  // namespace moeweld::infer
