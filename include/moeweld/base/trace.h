#pragma once
/// What this process' threads do: a timeline for `--trace`, and the calls that have not returned for a watchdog (open_spans.h). Off unless
/// started, and then a relaxed load per span.

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

namespace moeweld::trace {

/// What a span's colour and the timeline's filters go by.
enum class Kind : std::uint8_t {
  kStage,
  kRead,
  kCombine,
  kWrite,
  kJournal,
  kWait,         ///< for other threads of this process, or for a turn
  kPeers,        ///< for other ranks
  kSharedWrite,  ///< a write that ranks do together, so that it lasts until the last of them has come to it
};
constexpr bool waits_for_peers(Kind kind) { return kind == Kind::kPeers || kind == Kind::kSharedWrite; }

/// Spans that a process keeps; those beyond are counted, not kept. 40 bytes each: they are not part of the memory limit.
constexpr std::uint64_t kMostSpans = std::uint64_t{1} << 18;

class Span;

namespace detail {
constexpr unsigned kRecording = 1;
constexpr unsigned kWatching = 2;
extern std::atomic<unsigned> modes;
std::int64_t now_ns();
void record(Kind kind, const char* name, std::int64_t begin_ns, std::uint64_t bytes) noexcept;
/// Whether there was room for it.
bool open(const Span& span) noexcept;
void close(const Span& span) noexcept;
}  // namespace detail

/// Records from now on; times count from here. Discards what was recorded before. No span may be open in another thread.
void start();
void stop();
inline bool is_on() { return (detail::modes.load(std::memory_order_relaxed) & detail::kRecording) != 0; }

/// The name of this thread's row, "reader 1"; a later thread of the same name continues the row of one that has ended. Unnamed threads are
/// "thread N".
void name_thread(const std::string& name);

/// Records its own lifetime. `name` is a literal; `object` is what the call is about, such as a path, and outlives the span. Never throws:
/// without memory it is left out.
class Span {
 public:
  Span(Kind kind, const char* name, std::uint64_t bytes = 0, std::string_view object = {})
      : name_(name), object_(object), bytes_(bytes), kind_(kind) {
    const unsigned modes = detail::modes.load(std::memory_order_relaxed);
    if (modes == 0) return;
    begin_ns_ = detail::now_ns();
    is_recorded_ = (modes & detail::kRecording) != 0;
    is_open_ = (modes & detail::kWatching) != 0 && detail::open(*this);
  }
  ~Span() {
    if (is_open_) detail::close(*this);
    if (is_recorded_) detail::record(kind_, name_, begin_ns_, bytes_);
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

  Kind kind() const { return kind_; }
  const char* name() const { return name_; }
  std::string_view object() const { return object_; }
  std::int64_t begin_ns() const { return begin_ns_; }

 private:
  std::int64_t begin_ns_ = 0;
  const char* name_;
  std::string_view object_;
  std::uint64_t bytes_;
  Kind kind_;
  bool is_recorded_ = false;
  bool is_open_ = false;
};

/// The recorded events of this process as elements of Chrome's traceEvents, each followed by a comma and a newline: metadata that calls
/// process `rank` "rank N", then complete events (https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU) in
/// microseconds. No other thread may be recording.
std::string events_json(int rank);

/// Spans that found no room.
std::uint64_t num_dropped();

}  // namespace moeweld::trace
