#include "exec/unit_reader.h"

#include <algorithm>
#include <cstring>

#include "exec/speculation.h"
#include "moeweld/base/checked.h"
#include "moeweld/base/trace.h"

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

UnitReader::UnitReader(const plan::MergePlan& plan, InputFiles& files, BufferPool& slots, bool in_one_thread)
    : plan_(plan), files_(files), slots_(slots), in_one_thread_(in_one_thread) {}

void UnitReader::add(std::vector<Unit> units) {
  num_added_ += units.size();
  {
    const std::lock_guard lock(mutex_);
    for (Unit& unit : units) units_.push_back(std::move(unit));
  }
  changed_.notify_all();
  while (!in_one_thread_ && threads_.size() < std::min(kReaderThreads, num_added_)) {
    threads_.emplace_back([this, i = threads_.size()] {
      trace::name_thread("reader " + std::to_string(i));
      run();
    });
  }
}

UnitReader::~UnitReader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  // Given up before the end: a thread may wait for a slot that nobody will give back.
  if (num_left() != 0) slots_.close();
  for (std::thread& thread : threads_) thread.join();
  for (auto& [index, unit] : ready_) slots_.release(std::move(unit.slot));
}

LoadedUnit UnitReader::take() {
  if (in_one_thread_) {
    ViewReader views(files_, plan_.orders);
    LoadedUnit unit = load(units_[num_taken_], views, slots_.acquire());
    ++num_taken_;
    return unit;
  }
  const trace::Span span(trace::Kind::kWait, "wait for input");
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return ready_.contains(num_taken_) || failure_; });
  const auto found = ready_.find(num_taken_);
  if (found == ready_.end()) std::rethrow_exception(failure_);
  LoadedUnit unit = std::move(found->second);
  ready_.erase(found);
  ++num_taken_;
  lock.unlock();
  changed_.notify_all();
  return unit;
}

UnitReader::Turn UnitReader::next_turn() {
  const std::lock_guard turn(turn_mutex_);
  std::size_t index = 0;
  const Unit* unit = nullptr;
  {
    std::unique_lock lock(mutex_);
    const auto may_read = [this] {
      if (next_ == units_.size()) return false;
      const std::size_t most =
          units_[next_].front().is_held ? std::max(kReadAheadUnits, kReadAheadBytesHeld / slots_.buffer_bytes()) : kReadAheadUnits;
      return next_ - num_taken_ < most;
    };
    changed_.wait(lock, [&] { return stop_ || failure_ || may_read(); });
    if (stop_ || failure_) return {};
    index = next_++;
    unit = &units_[index];
  }
  return {index, unit, slots_.acquire()};
}

void UnitReader::run() {
  ViewReader views(files_, plan_.orders);
  try {
    while (true) {
      Turn turn = next_turn();
      if (turn.slot.size() == 0) return;
      LoadedUnit loaded = load(*turn.unit, views, std::move(turn.slot));
      {
        const std::lock_guard lock(mutex_);
        ready_.emplace(turn.index, std::move(loaded));
      }
      changed_.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    changed_.notify_all();
  }
}

void UnitReader::load_sample(std::uint32_t operation, ViewReader& views, LoadedUnit& loaded) {
  for (const Piece& chunk : sample_chunks(plan_, operation)) {
    loaded.sample_chunks.push_back(chunk);
    loaded.first_sample.push_back(loaded.sample.size());
    for (const plan::SourceView& source : plan_.operations[operation].sources) {
      std::vector<std::byte>& bytes = loaded.sample.emplace_back(chunk.num_elements * size_bytes(source.dtype));
      loaded.read_bytes += views.read(source, chunk.first_element, chunk.num_elements, bytes.data());
    }
  }
}

LoadedUnit UnitReader::load(const Unit& unit, ViewReader& views, AlignedBuffer slot) {
  LoadedUnit loaded;
  loaded.pieces = unit;
  std::vector<Range> ranges;
  std::size_t used = 0;
  for (const Piece& piece : unit) {
    if (piece.first_element == 0 && piece.is_guessed) load_sample(piece.operation, views, loaded);
    loaded.first_source.push_back(loaded.data.size());
    if (piece.is_remembered) continue;
    for (const plan::SourceView& source : sources_of(plan_, piece.operation)) {
      const std::size_t size = size_bytes(source.dtype);
      if (source.kind == plan::SourceView::Kind::kBytes) {
        const std::uint64_t begin = source.begin + piece.first_element * size;
        ranges.push_back({source.file, begin, begin + piece.num_elements * size, loaded.data.size(), size});
        loaded.data.push_back(nullptr);
        continue;
      }
      const std::uint64_t bytes = piece.num_elements * size;
      if (used + bytes > slot.size()) throw Error(ErrorCode::kInternal, "a unit does not fit its input slot");
      loaded.read_bytes += views.read(source, piece.first_element, piece.num_elements, slot.data() + used);
      if (views.num_nan_codes() != 0) loaded.with_nan_codes.push_back(piece.operation);
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
      const std::shared_ptr<InputFile> file = files_.open(ranges[first].file);
      if (end > file->identity().size_bytes)
        throw Error(ErrorCode::kInvalidInput, "was cut after the merge was planned: it ends before what is read of it", file->path());
      file->read(extent_begin, extent);
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
