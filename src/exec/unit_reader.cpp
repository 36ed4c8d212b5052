#include "exec/unit_reader.h"

#include <algorithm>
#include <cstring>

#include "moeweld/base/checked.h"

namespace moeweld::exec {

namespace {

/// Neighbours closer than this are read together: one larger read costs less than two.
constexpr std::uint64_t kJoinGapBytes = 32 * kKiB;

/// One source's bytes within a file.
struct Range {
  std::uint32_t file = 0;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::size_t index = 0;  // into LoadedUnit::data
  std::size_t element_size = 1;
};

}  // namespace

UnitReader::UnitReader(const plan::MergePlan& plan, std::span<const Unit> units, InputFiles& files, BufferPool& slots,
                       std::size_t read_ahead)
    : plan_(plan), units_(units), files_(files), views_(files), slots_(slots), read_ahead_(read_ahead), thread_([this] { run(); }) {}

UnitReader::~UnitReader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  // Given up before the end: the thread may wait for a slot that nobody will give back.
  if (num_taken_ < units_.size()) slots_.close();
  thread_.join();
  for (LoadedUnit& unit : ready_) slots_.release(std::move(unit.slot));
}

LoadedUnit UnitReader::take() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty() || failure_; });
  if (ready_.empty()) std::rethrow_exception(failure_);
  LoadedUnit unit = std::move(ready_.front());
  ready_.pop_front();
  ++num_taken_;
  lock.unlock();
  changed_.notify_all();
  return unit;
}

void UnitReader::run() {
  try {
    for (const Unit& unit : units_) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stop_ || ready_.size() < read_ahead_; });
        if (stop_) return;
      }
      AlignedBuffer slot = slots_.acquire();
      if (slot.size() == 0) return;  // closed
      LoadedUnit loaded = load(unit, std::move(slot));
      {
        const std::lock_guard lock(mutex_);
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

LoadedUnit UnitReader::load(const Unit& unit, AlignedBuffer slot) {
  LoadedUnit loaded;
  loaded.pieces = unit;
  std::vector<Range> ranges;
  std::size_t used = 0;
  for (const Piece& piece : unit) {
    loaded.first_source.push_back(loaded.data.size());
    for (const plan::SourceView& source : plan_.operations[piece.operation].sources) {
      const std::size_t size = size_bytes(source.dtype);
      if (source.kind == plan::SourceView::Kind::kBytes) {
        const std::uint64_t begin = source.begin + piece.first_element * size;
        ranges.push_back({source.file, begin, begin + piece.num_elements * size, loaded.data.size(), size});
        loaded.data.push_back(nullptr);
        continue;
      }
      const std::uint64_t bytes = piece.num_elements * size;
      if (used + bytes > slot.size()) throw Error(ErrorCode::kInternal, "a unit does not fit its input slot");
      loaded.read_bytes += views_.read(source, piece.first_element, piece.num_elements, slot.data() + used);
      loaded.data.push_back(slot.data() + used);
      used += round_up(bytes, kDirectAlignment);
    }
  }
  loaded.first_source.push_back(loaded.data.size());
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return std::tie(a.file, a.begin) < std::tie(b.file, b.begin); });

  // What the ranges from here on need if none of them is joined.
  std::vector<std::uint64_t> rest(ranges.size() + 1);
  for (std::size_t i = ranges.size(); i-- > 0;) rest[i] = rest[i + 1] + ranges[i].end - ranges[i].begin + 2 * kDirectAlignment;

  for (std::size_t first = 0; first < ranges.size();) {
    const bool misaligned = ranges[first].begin % ranges[first].element_size != 0;
    std::uint64_t end = ranges[first].end;
    std::size_t last = first + 1;
    // A source that is not aligned for its type is moved after reading, so it stays alone.
    while (!misaligned && last < ranges.size() && ranges[last].file == ranges[first].file && ranges[last].begin >= end &&
           ranges[last].begin - end <= kJoinGapBytes && ranges[last].begin % ranges[last].element_size == 0) {
      const std::uint64_t joined = round_up(ranges[last].end, kDirectAlignment) - round_down(ranges[first].begin, kDirectAlignment);
      if (used + joined + rest[last + 1] > slot.size()) break;
      end = ranges[last].end;
      ++last;
    }
    const std::uint64_t extent_begin = round_down(ranges[first].begin, kDirectAlignment);
    const std::uint64_t extent_bytes = round_up(end, kDirectAlignment) - extent_begin;
    if (used + extent_bytes > slot.size()) throw Error(ErrorCode::kInternal, "a unit does not fit its input slot");
    const std::span<std::byte> extent = slot.span().subspan(used, extent_bytes);
    if (end > ranges[first].begin) {
      InputFile& file = files_.open(ranges[first].file);
      if (end > file.identity().size_bytes)
        throw Error(ErrorCode::kInternal, "a planned source lies beyond the end of its file", file.path());
      file.read(extent_begin, extent);
      loaded.read_bytes += end - ranges[first].begin;
    }
    for (std::size_t i = first; i < last; ++i) {
      std::byte* data = extent.data() + (ranges[i].begin - extent_begin);
      if (misaligned) {
        std::memmove(extent.data(), data, ranges[i].end - ranges[i].begin);
        data = extent.data();
      }
      loaded.data[ranges[i].index] = data;
    }
    used += extent_bytes;
    first = last;
  }
  loaded.slot = std::move(slot);
  return loaded;
}

}  // namespace moeweld::exec
