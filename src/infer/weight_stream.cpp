#include "infer/weight_stream.h"

#include <algorithm>

#include "moeweld/base/checked.h"
#include "moeweld/base/error.h"
#include "moeweld/base/trace.h"
#include "moeweld/infer/forward.h"
#include "moeweld/merge/block_scales.h"
#include "moeweld/merge/decode.h"

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
        read_bytes_ += (part.end - part.begin) * (part.weight.row_bytes() + (part.second.is_present() ? part.second.row_bytes() : 0));
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
  loaded.first = read(loaded.rows.weight, range.begin, range.end, space);
  if (range.second.is_present()) loaded.second = read(loaded.rows.second, range.begin, range.end, space);
  return loaded;
}

const std::byte* WeightStream::read_scaled(model::Weight& weight, std::uint64_t begin, std::uint64_t end, std::span<std::byte>& space) {
  const model::Weight::Scales& scales = weight.scales;
  codes_.resize((end - begin) * weight.columns);
  files_.open(weight.file).read(weight.begin + begin * weight.columns, codes_);
  const std::uint64_t first_block = (scales.first_row + begin) / kScaleBlock;
  const std::uint64_t num_blocks = (scales.first_row + end - 1) / kScaleBlock + 1 - first_block;
  const std::uint64_t row_bytes = scales.columns * moeweld::size_bytes(scales.dtype);
  std::vector<std::byte> bytes(num_blocks * row_bytes);
  files_.open(scales.file).read(scales.begin + first_block * row_bytes, bytes);
  std::vector<float> values(num_blocks * scales.columns);
  merge::decode_elements(scales.dtype, bytes.data(), values);
  const std::uint64_t length = round_up((end - begin) * weight.value_row_bytes(), kDirectAlignment);
  if (length > space.size()) throw Error(ErrorCode::kInternal, "a row tile is larger than the buffer for it");
  auto* target = reinterpret_cast<float*>(space.data());
  for (std::uint64_t row = begin; row < end; ++row) {
    const std::uint64_t block = (scales.first_row + row) / kScaleBlock - first_block;
    merge::decode_block_scaled(codes_.data() + (row - begin) * weight.columns, 0, values.data() + block * scales.columns,
                               {target + (row - begin) * weight.columns, weight.columns});
  }
  const std::byte* data = space.data();
  space = space.subspan(length);
  weight.dtype = DType::kF32;
  weight.scales = {};
  return data;
}

const std::byte* WeightStream::read(model::Weight& weight, std::uint64_t begin, std::uint64_t end, std::span<std::byte>& space) {
  if (weight.scales.columns != 0) return read_scaled(weight, begin, end, space);
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
