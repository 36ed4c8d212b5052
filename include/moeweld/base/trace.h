#pragma once
/// A timeline of what this process' threads do, for `--trace`: off unless started, and then a relaxed load per span.

#include <atomic>
#include <cstdint>
#include <string>

namespace moeweld::trace {

/// What a span's colour and the timeline's filters go by.
enum class Kind : std::uint8_t { kStage, kRead, kCombine, kWrite, kJournal, kWait };

/// Spans that a process keeps; those beyond are counted, not kept. 40 bytes each: they are not part of the memory limit.
constexpr std::uint64_t kMostSpans = std::uint64_t{1} << 18;

namespace detail {
extern std::atomic<bool> is_on;
std::int64_t now_ns();
void record(Kind kind, const char* name, std::int64_t begin_ns, std::uint64_t bytes) noexcept;
}  // namespace detail

/// Records from now on; times count from here. Discards what was recorded before. No span may be open in another thread.
void start();
void stop();
inline bool is_on() { return detail::is_on.load(std::memory_order_relaxed); }

/// The name of this thread's row, "reader 1"; a later thread of the same name continues the row of one that has ended. Unnamed threads are
/// "thread N".
void name_thread(const std::string& name);

/// Records its own lifetime. `name` is a literal. Never throws: without memory it is left out.
class Span {
 public:
  Span(Kind kind, const char* name, std::uint64_t bytes = 0) : name_(name), bytes_(bytes), kind_(kind) {
    if (is_on()) begin_ns_ = detail::now_ns();
  }
  ~Span() {
    if (begin_ns_ >= 0) detail::record(kind_, name_, begin_ns_, bytes_);
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  std::int64_t begin_ns_ = -1;
  const char* name_;
  std::uint64_t bytes_;
  Kind kind_;
};

/// The recorded events of this process as elements of Chrome's traceEvents, each followed by a comma and a newline: metadata that calls
/// process `rank` "rank N", then complete events (https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU) in
/// microseconds. No other thread may be recording.
std::string events_json(int rank);

/// Spans that found no room.
std::uint64_t num_dropped();

}  // namespace moeweld::trace
