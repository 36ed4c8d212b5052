#include "app/signs_of_life.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "app/stall_judge.h"

namespace moeweld::app {

namespace {

std::mutex current_mutex;
SignsOfLife* current = nullptr;

/// A call that others may wait for: neither itself a wait, nor a stage, which is made of calls.
bool is_work(const trace::OpenSpan& span) {
  return span.kind != trace::Kind::kWait && span.kind != trace::Kind::kStage && !trace::waits_for_peers(span.kind);
}

}  // namespace

bool waits_for_peers(const std::vector<trace::OpenSpan>& spans) {
  return std::ranges::none_of(spans, is_work) &&
         std::ranges::any_of(spans, [](const trace::OpenSpan& span) { return trace::waits_for_peers(span.kind); });
}

std::string doing_text(const std::vector<trace::OpenSpan>& spans) {
  if (spans.empty()) return "nothing that has a name";
  auto span = std::ranges::find_if(spans, is_work);
  if (span == spans.end())
    span = std::ranges::find_if(spans, [](const trace::OpenSpan& open) { return trace::waits_for_peers(open.kind); });
  if (span == spans.end()) span = spans.begin();
  return fmt::format("'{}{}{}'{}, for {:.0f} s", span->name, span->object.empty() ? "" : " ", span->object,
                     span->thread.empty() ? "" : " (" + span->thread + ")", span->seconds);
}

Heartbeat heartbeat_of(std::vector<trace::OpenSpan> spans, std::uint64_t steps, const std::string& place) {
  return {.number = 0, .steps = steps, .waits_for_peers = waits_for_peers(spans), .place = place, .doing = doing_text(spans)};
}

std::string this_place() {
  char host[256] = "?";
  static_cast<void>(gethostname(host, sizeof host - 1));
  return fmt::format("process {} on {}", getpid(), host);
}

SignsOfLife::SignsOfLife(Peers& peers, const std::string& path, std::chrono::duration<double> interval)
    : file_(path),
      rank_(peers.rank()),
      observes_(is_observer(peers.rank(), peers.size())),
      interval_(interval),
      place_(this_place()),
      seen_(static_cast<std::size_t>(peers.size())) {
  agree_on(peers, [&] {
    if (rank_ == 0) file_.create(peers.size());
  });
  thread_ = std::thread([this] { run(); });
  const std::lock_guard lock(current_mutex);
  current = this;
}

SignsOfLife::~SignsOfLife() {
  {
    const std::lock_guard lock(current_mutex);
    current = nullptr;
  }
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  const trace::Span span(trace::Kind::kWrite, "last heartbeat", 0, file_.path());
  thread_.join();
  if (rank_ == 0) file_.remove();
}

void SignsOfLife::visit(const std::function<void(std::uint64_t, const std::vector<Seen>&)>& visitor) {
  const std::lock_guard lock(current_mutex);
  if (current == nullptr || !current->observes_) return;
  const std::lock_guard own_lock(current->mutex_);
  visitor(current->peer_steps_, current->seen_);
}

void SignsOfLife::run() {
  std::unique_lock lock(mutex_);
  for (std::uint64_t number = 1; !stop_; ++number) {
    lock.unlock();
    // Neither may be done under the lock: a file system that hangs must not keep the watchdog from looking.
    Heartbeat heartbeat = heartbeat_of(trace::open_spans(), trace::num_steps(), place_);
    heartbeat.number = number;
    static_cast<void>(file_.write(rank_, heartbeat));
    if (observes_) look_at_others();
    lock.lock();
    changed_.wait_for(lock, interval_, [this] { return stop_; });
  }
}

void SignsOfLife::look_at_others() {
  const std::vector<std::optional<Heartbeat>> read = file_.read();
  const std::lock_guard lock(mutex_);
  for (std::size_t rank = 0; rank < seen_.size(); ++rank) {
    Seen& seen = seen_[rank];
    ++seen.silent_beats;
    if (rank >= read.size() || !read[rank]) continue;
    const Heartbeat& heartbeat = *read[rank];
    if (!seen.last || heartbeat.number != seen.last->number) seen.silent_beats = 0;
    // One who just begins has done something, too.
    if (static_cast<int>(rank) != rank_ && (!seen.last || heartbeat.steps != seen.last->steps)) ++peer_steps_;
    seen.last = heartbeat;
  }
}

}  // namespace moeweld::app
