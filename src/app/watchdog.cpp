#include "app/watchdog.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>

#include "moeweld/base/text.h"
#include "moeweld/formats/json.h"

namespace moeweld::app {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostRanksNamed = 5;
constexpr std::size_t kLongestText = 1000;
/// Beats without news after which a rank is said to be silent: one that lives has sent one meanwhile.
constexpr int kSilentBeats = 4;
constexpr int kWriteTimeoutMs = 2000;

/// Past stdio, whose lock a thread that hangs may hold; and a reader that takes nothing does not stop it.
void say(std::string_view text) {
  while (!text.empty()) {
    pollfd ready{STDERR_FILENO, POLLOUT, 0};
    if (poll(&ready, 1, kWriteTimeoutMs) <= 0) return;
    const ssize_t count = ::write(STDERR_FILENO, text.data(), text.size());
    if (count <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
}

std::string peer_line(std::size_t rank, const SignsOfLife::Seen& seen, double seconds_per_beat) {
  if (!seen.last) return fmt::format("rank {} has never been heard of", rank);
  const std::string who = fmt::format("rank {} ({})", rank, printable(seen.last->place, kLongestText));
  const std::string what = printable(seen.last->doing, kLongestText);
  if (seen.silent_beats < kSilentBeats) return who + " is in " + what;
  return fmt::format("{} has not been heard of for {:.0f} s: it is stopped, or its node is, or cannot reach the output; it was in {}", who,
                     seen.silent_beats * seconds_per_beat, what);
}

/// Of those that the others wait for: ranks that are silent, else ranks that do not wait, else all.
std::vector<std::string> peer_lines(const StallReport& report) {
  const auto lines = [&](const auto& is_meant) {
    std::vector<std::string> result;
    std::size_t num_meant = 0;
    for (std::size_t rank = 0; rank < report.peers.size(); ++rank) {
      if (!is_meant(report.peers[rank])) continue;
      if (++num_meant <= kMostRanksNamed) result.push_back(peer_line(rank, report.peers[rank], report.seconds_per_beat));
    }
    if (num_meant > kMostRanksNamed) result.push_back(fmt::format("and {} more", num_meant - kMostRanksNamed));
    return result;
  };
  auto result = lines([](const SignsOfLife::Seen& seen) { return !seen.last || seen.silent_beats >= kSilentBeats; });
  if (result.empty()) result = lines([](const SignsOfLife::Seen& seen) { return !seen.last->waits_for_peers; });
  if (result.empty()) result = lines([](const SignsOfLife::Seen&) { return true; });
  return result;
}

}  // namespace

std::string stall_text(const StallReport& report, const WatchdogVoice& voice) {
  const std::string doing = printable(doing_text(report.spans), kLongestText);
  std::string what;
  std::vector<std::string> lines;
  if (report.peers.empty()) {
    what = fmt::format("rank {} has made no progress for {:.0f} s", report.rank, report.seconds);
    lines = {fmt::format("rank {} ({}) is in {}", report.rank, report.place, doing)};
  } else {
    what = fmt::format("no rank has made progress for {:.0f} s", report.seconds);
    lines = peer_lines(report);
    lines.push_back(fmt::format("rank {} ({}), which says this, waits in {}", report.rank, report.place, doing));
  }
  if (voice.as_json) {
    formats::Json json;
    json["event"] = "error";
    json["exit_code"] = kStalledExitCode;
    json["problems"] = formats::Json::array();
    for (const std::string& line : lines) json["problems"].push_back({{"code", "stalled"}, {"message", what + ": " + line}});
    return json.dump(-1, ' ', false, formats::Json::error_handler_t::replace) + "\n";
  }
  std::string text = "moeweld: ended by its watchdog: " + what + "\n\n";
  for (const std::string& line : lines) text += "  " + line + "\n";
  text += "\n";
  if (voice.writes_output)
    text += "What is done is kept in OUT.partial, if it was begun. Run the command again with --resume to continue.\n";
  return text + "If a call may take that long here, say --stall-timeout SECONDS, or 0 for no watchdog.\n";
}

Watchdog::Watchdog(int rank, int size, std::chrono::duration<double> timeout, WatchdogVoice voice)
    : rank_(rank), voice_(voice), place_(this_place()), judge_(timeout, timeout.count() > 0 ? observer_patience(rank, size, timeout) : 0) {
  if (timeout.count() <= 0) return;
  trace::watch();
  thread_ = std::thread([this] { run(); });
}

Watchdog::~Watchdog() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  trace::stop_watching();
}

void Watchdog::run() {
  std::unique_lock lock(mutex_);
  auto last = Clock::now();
  while (!changed_.wait_for(lock, judge_.interval(), [this] { return stop_; })) {
    const auto now = Clock::now();
    look(now - last);
    last = now;
  }
}

void Watchdog::look(std::chrono::duration<double> since_last) {
  std::vector<trace::OpenSpan> spans = trace::open_spans();
  StallLook seen{since_last, trace::num_steps(), waits_for_peers(spans), std::nullopt};
  std::vector<SignsOfLife::Seen> peers;
  SignsOfLife::visit([&](std::uint64_t steps, const std::vector<SignsOfLife::Seen>& all) {
    seen.peer_steps = steps;
    peers = all;
  });
  switch (judge_.look(seen)) {
    case StallVerdict::kNone:
      return;
    case StallVerdict::kOwn:
      end_job(judge_.own_stall().count(), std::move(spans), {});
    case StallVerdict::kPeers:
      end_job(judge_.peers_stall().count(), std::move(spans), std::move(peers));
  }
}

void Watchdog::end_job(double seconds, std::vector<trace::OpenSpan> spans, std::vector<SignsOfLife::Seen> peers) {
  const double seconds_per_beat = judge_.interval().count() * kLooksPerTimeout / kBeatsPerTimeout;
  say(stall_text({rank_, place_, seconds, std::move(spans), std::move(peers), seconds_per_beat}, voice_));
  std::_Exit(kStalledExitCode);
}

}  // namespace moeweld::app
