#include "moeweld/base/trace.h"

#include <chrono>
#include <cstdio>
#include <deque>
#include <mutex>
#include <vector>

#include "base/thread_spans.h"

namespace moeweld::trace {

namespace detail {
std::atomic<unsigned> modes{0};
}  // namespace detail

namespace {

struct Recorded {
  std::int64_t begin_ns = 0;
  std::int64_t end_ns = 0;
  const char* name = nullptr;
  std::uint64_t bytes = 0;
  Kind kind = Kind::kStage;
};

/// One row of the timeline. Only the thread that holds it writes to it.
struct Row {
  std::string name;
  std::vector<Recorded> events;
  bool is_held = true;
};

struct Recorder {
  std::mutex mutex;
  std::deque<Row> rows;  // addresses stay
  std::uint64_t generation = 0;
  std::atomic<std::uint64_t> num_spans{0};
  std::int64_t origin_ns = 0;
};

/// Never destroyed: threads that outlive main may still hold rows.
Recorder& recorder() {
  static Recorder& instance = *new Recorder;
  return instance;
}

/// This thread's row, given back for a later thread of the same name when the thread ends.
class HeldRow {
 public:
  ~HeldRow() { give_back(); }

  Row& get() {
    Recorder& all = recorder();
    if (row_ != nullptr && generation_ == all.generation) return *row_;
    const std::lock_guard lock(all.mutex);
    generation_ = all.generation;
    row_ = nullptr;
    for (Row& row : all.rows) {
      if (!row.is_held && row.name == name_ && !name_.empty()) row_ = &row;
    }
    if (row_ == nullptr) {
      row_ = &all.rows.emplace_back();
      row_->name = name_.empty() ? "thread " + std::to_string(all.rows.size()) : name_;
    }
    row_->is_held = true;
    return *row_;
  }

  void rename(const std::string& name) {
    give_back();
    name_ = name;
  }

 private:
  void give_back() {
    Recorder& all = recorder();
    const std::lock_guard lock(all.mutex);
    if (row_ != nullptr && generation_ == all.generation) row_->is_held = false;
    row_ = nullptr;
  }

  std::string name_;
  Row* row_ = nullptr;
  std::uint64_t generation_ = 0;
};

thread_local HeldRow held_row;

const char* category(Kind kind) {
  constexpr const char* kNames[] = {"stage", "read", "combine", "write", "journal", "wait", "wait", "write"};
  return kNames[static_cast<std::size_t>(kind)];
}

template <typename... Values>
void append(std::string& text, const char* format, Values... values) {
  char buffer[512];
  const int length = std::snprintf(buffer, sizeof buffer, format, values...);
  text.append(buffer, static_cast<std::size_t>(length));
}

}  // namespace

namespace detail {

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void record(Kind kind, const char* name, std::int64_t begin_ns, std::uint64_t bytes) noexcept {
  const std::int64_t end_ns = now_ns();
  if (!is_on()) return;
  if (recorder().num_spans.fetch_add(1, std::memory_order_relaxed) >= kMostSpans) return;
  try {
    held_row.get().events.push_back({begin_ns, end_ns, name, bytes, kind});
  } catch (...) {  // a span less
  }
}

}  // namespace detail

void start() {
  Recorder& all = recorder();
  const std::lock_guard lock(all.mutex);
  all.rows.clear();
  ++all.generation;
  all.num_spans = 0;
  all.origin_ns = detail::now_ns();
  detail::modes |= detail::kRecording;
}

void stop() { detail::modes &= ~detail::kRecording; }

void name_thread(const std::string& name) {
  held_row.rename(name);
  name_thread_spans(name);
}

std::string events_json(int rank) {
  Recorder& all = recorder();
  const std::lock_guard lock(all.mutex);
  std::string text;
  append(text, "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%d,\"tid\":0,\"args\":{\"name\":\"rank %d\"}},\n", rank, rank);
  append(text, "{\"ph\":\"M\",\"name\":\"process_sort_index\",\"pid\":%d,\"tid\":0,\"args\":{\"sort_index\":%d}},\n", rank, rank);
  for (std::size_t tid = 0; tid < all.rows.size(); ++tid) {
    const Row& row = all.rows[tid];
    append(text, "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%d,\"tid\":%zu,\"args\":{\"name\":\"%.100s\"}},\n", rank, tid,
           row.name.c_str());
    for (const Recorded& event : row.events) {
      append(text, "{\"ph\":\"X\",\"name\":\"%s\",\"cat\":\"%s\",\"pid\":%d,\"tid\":%zu,\"ts\":%.3f,\"dur\":%.3f", event.name,
             category(event.kind), rank, tid, static_cast<double>(event.begin_ns - all.origin_ns) / 1e3,
             static_cast<double>(event.end_ns - event.begin_ns) / 1e3);
      if (event.bytes != 0) append(text, ",\"args\":{\"bytes\":%llu}", static_cast<unsigned long long>(event.bytes));
      text += "},\n";
    }
  }
  return text;
}

std::uint64_t num_dropped() {
  const std::uint64_t spans = recorder().num_spans;
  return spans > kMostSpans ? spans - kMostSpans : 0;
}

}  // namespace moeweld::trace
