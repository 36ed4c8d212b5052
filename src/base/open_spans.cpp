#include "moeweld/base/open_spans.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

#include "base/thread_spans.h"

namespace moeweld::trace {

namespace {

/// Spans within spans; those deeper are not seen.
constexpr std::size_t kMostNested = 8;

/// Its own thread opens and closes spans, any thread may look at them under the lock.
struct ThreadSpans {
  std::mutex mutex;
  std::string name;
  std::array<const Span*, kMostNested> spans{};
  std::size_t num_open = 0;
};

struct Threads {
  std::mutex mutex;
  std::vector<ThreadSpans*> all;
};

/// Never destroyed: threads may outlive main.
Threads& threads() {
  static Threads& instance = *new Threads;
  return instance;
}

std::atomic<std::uint64_t> steps{0};

/// Lists this thread as long as it lives.
class Listed {
 public:
  Listed() {
    const std::lock_guard lock(threads().mutex);
    threads().all.push_back(&own_);
  }
  ~Listed() {
    const std::lock_guard lock(threads().mutex);
    std::erase(threads().all, &own_);
  }
  Listed(const Listed&) = delete;
  Listed& operator=(const Listed&) = delete;

  ThreadSpans& get() { return own_; }

 private:
  ThreadSpans own_;
};

ThreadSpans& own_spans() {
  thread_local Listed listed;
  return listed.get();
}

}  // namespace

namespace detail {

bool open(const Span& span) noexcept {
  try {
    ThreadSpans& own = own_spans();
    const std::lock_guard lock(own.mutex);
    if (own.num_open == kMostNested) return false;
    own.spans[own.num_open++] = &span;
    return true;
  } catch (...) {  // no memory for the list
    return false;
  }
}

void close(const Span& span) noexcept {
  ThreadSpans& own = own_spans();
  {
    const std::lock_guard lock(own.mutex);
    --own.num_open;
  }
  if (span.kind() != Kind::kWait) made_progress();
}

}  // namespace detail

void name_thread_spans(const std::string& name) {
  ThreadSpans& own = own_spans();
  const std::lock_guard lock(own.mutex);
  own.name = name;
}

void watch() { detail::modes |= detail::kWatching; }
void stop_watching() { detail::modes &= ~detail::kWatching; }

std::uint64_t num_steps() { return steps.load(std::memory_order_relaxed); }
void made_progress() { steps.fetch_add(1, std::memory_order_relaxed); }

std::vector<OpenSpan> open_spans() {
  const std::int64_t now_ns = detail::now_ns();
  std::vector<OpenSpan> result;
  {
    const std::lock_guard lock(threads().mutex);
    for (ThreadSpans* thread : threads().all) {
      const std::lock_guard spans_lock(thread->mutex);
      if (thread->num_open == 0) continue;
      const Span& span = *thread->spans[thread->num_open - 1];
      result.push_back(
          {span.kind(), span.name(), std::string(span.object()), thread->name, static_cast<double>(now_ns - span.begin_ns()) / 1e9});
    }
  }
  std::ranges::stable_sort(result, std::greater(), &OpenSpan::seconds);
  return result;
}

}  // namespace moeweld::trace
