#include "app/progress.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "moeweld/base/text.h"
#include "moeweld/dist/mpi_peers.h"
#include "moeweld/formats/json.h"

namespace moeweld::app {

namespace {

double gigabytes_per_second(std::uint64_t bytes, double seconds) { return seconds > 0 ? static_cast<double>(bytes) / 1e9 / seconds : 0; }

std::string duration_text(double seconds) {
  const auto whole = std::llround(seconds);
  return whole >= 3600 ? fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
                       : fmt::format("{}:{:02}", whole / 60, whole % 60);
}

double fraction_of(std::uint64_t done, std::uint64_t total) {
  return total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
}

/// Whether somebody looks at standard error as it is written. Launchers give ranks a pipe and pass on what comes out: where the launcher
/// runs on this host, as our parent, its own standard error tells.
bool is_watched() {
  if (isatty(STDERR_FILENO) == 1) return true;
  if (!dist::started_by_launcher()) return false;
  const int descriptor = open(fmt::format("/proc/{}/fd/2", getppid()).c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool result = isatty(descriptor) == 1;
  close(descriptor);
  return result;
}

std::uint64_t peak_memory(const exec::MergeReport& report) {
  std::uint64_t peak = 0;
  for (const exec::RankReport& rank : report.ranks) peak = std::max(peak, rank.peak_memory_bytes);
  return peak;
}

}  // namespace

ProgressFigures progress_figures(std::span<const exec::Progress> ranks, double seconds) {
  ProgressFigures result;
  double slowest = 1;
  int slowest_rank = 0;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const exec::Progress& progress = ranks[rank];
    result.read_bytes += progress.read_bytes;
    result.written_bytes += progress.written_bytes;
    result.total_bytes += progress.total_written_bytes;
    const double done = fraction_of(progress.written_bytes, progress.total_written_bytes);
    if (done < slowest) {
      slowest = done;
      slowest_rank = static_cast<int>(rank);
    }
  }
  result.fraction = fraction_of(result.written_bytes, result.total_bytes);
  result.read_gb_per_s = gigabytes_per_second(result.read_bytes, seconds);
  result.write_gb_per_s = gigabytes_per_second(result.written_bytes, seconds);
  // Where shares move the others help the slowest.
  const bool shares_move = std::any_of(ranks.begin(), ranks.end(), [](const exec::Progress& progress) { return progress.shares_move; });
  const double last = shares_move ? result.fraction : slowest;
  if (last > 0) result.eta_seconds = seconds * (1 - last) / last;
  if (ranks.size() > 1) {
    result.slowest_rank = slowest_rank;
    result.slowest_behind = std::max(0.0, result.fraction - slowest);
  }
  return result;
}

std::string progress_text(const ProgressFigures& figures) {
  std::string text = fmt::format("{:3.0f} %  {} of {} written   read {:.1f} GB/s  write {:.1f} GB/s   ETA {}", 100 * figures.fraction,
                                 format_bytes(figures.written_bytes), format_bytes(figures.total_bytes), figures.read_gb_per_s,
                                 figures.write_gb_per_s, figures.eta_seconds ? duration_text(*figures.eta_seconds) : "unknown");
  // Ranks that are level have no slowest among them.
  if (figures.slowest_rank && figures.slowest_behind >= 0.005)
    text += fmt::format("   slowest rank {} (-{:.0f} %)", *figures.slowest_rank, 100 * figures.slowest_behind);
  return text;
}

std::string progress_json(const ProgressFigures& figures) {
  formats::Json json;
  json["event"] = "progress";
  json["fraction"] = figures.fraction;
  json["read_bytes"] = figures.read_bytes;
  json["written_bytes"] = figures.written_bytes;
  json["total_bytes"] = figures.total_bytes;
  json["read_gb_per_s"] = figures.read_gb_per_s;
  json["write_gb_per_s"] = figures.write_gb_per_s;
  json["eta_seconds"] = figures.eta_seconds ? formats::Json(*figures.eta_seconds) : formats::Json(nullptr);
  if (figures.slowest_rank) {
    json["slowest_rank"] = *figures.slowest_rank;
    json["slowest_behind"] = figures.slowest_behind;
  }
  return json.dump();
}

ProgressPrinter::ProgressPrinter(bool json, bool quiet) : json_(json), quiet_(quiet), terminal_(is_watched()) {}

ProgressPrinter::~ProgressPrinter() { finish(); }

void ProgressPrinter::update(std::span<const exec::Progress> ranks) {
  if (quiet_) return;
  const auto now = std::chrono::steady_clock::now();
  const bool live = terminal_ && !json_;
  if (now - last_ < (live ? std::chrono::steady_clock::duration(kLiveInterval) : std::chrono::steady_clock::duration(kLogInterval))) return;
  last_ = now;
  const ProgressFigures figures = progress_figures(ranks, std::chrono::duration<double>(now - start_).count());
  const std::string text = json_ ? progress_json(figures) : progress_text(figures);
  if (live) {
    fmt::print(stderr, "\r\033[K {}", text);
    live_ = true;
  } else {
    fmt::print(stderr, "{}\n", text);
  }
  std::fflush(stderr);
}

void ProgressPrinter::finish() {
  if (live_) fmt::print(stderr, "\r\033[K");
  live_ = false;
}

std::string summary_text(const exec::MergeReport& report, std::size_t num_files, const std::string& output) {
  std::string text = fmt::format("{}: {} {}, {} in {} (read {:.1f} GB/s, write {:.1f} GB/s), peak {} per rank\n", output, num_files,
                                 num_files == 1 ? "file" : "files", format_bytes(report.written_bytes),
                                 format_duration(report.total_seconds), gigabytes_per_second(report.read_bytes, report.total_seconds),
                                 gigabytes_per_second(report.written_bytes, report.total_seconds), format_memory(peak_memory(report)));
  double measure = 0;
  double slowest = 0;
  double fastest = 1e300;
  int slowest_rank = 0;
  for (std::size_t i = 0; i < report.ranks.size(); ++i) {
    const double seconds = report.ranks[i].measure_seconds + report.ranks[i].merge_seconds;
    measure = std::max(measure, report.ranks[i].measure_seconds);
    fastest = std::min(fastest, seconds);
    if (seconds > slowest) {
      slowest = seconds;
      slowest_rank = static_cast<int>(i);
    }
  }
  text +=
      fmt::format("stages: {}measure {}, merge {}, publish {}",
                  report.prepare_seconds >= 0.05 ? "router rows " + format_duration(report.prepare_seconds) + ", " : "",
                  format_duration(measure), format_duration(slowest - std::min(slowest, measure)), format_duration(report.publish_seconds));
  if (report.ranks.size() > 1 && slowest - fastest >= 0.05) {
    // A rank with next to no work has a time that nothing is a percentage of.
    const bool is_comparable = 10 * fastest >= slowest;
    text += fmt::format("; slowest rank {} (+{} over the fastest)", slowest_rank,
                        is_comparable ? fmt::format("{:.0f} %", 100 * (slowest - fastest) / fastest) : format_duration(slowest - fastest));
  }
  std::uint64_t taken_bytes = 0;
  for (const exec::RankReport& rank : report.ranks) taken_bytes += rank.taken_bytes;
  if (taken_bytes != 0) text += "; " + format_bytes(taken_bytes) + " moved between ranks";
  if (report.resumed_bytes != 0) text += "\ncontinued: " + format_bytes(report.resumed_bytes) + " were written before";
  for (const std::string& warning : report.warnings) text += "\nwarning: " + warning;
  return text + "\nverify with: moeweld verify " + output + "\n";
}

std::string summary_json(const exec::MergeReport& report, std::size_t num_files, const std::string& output) {
  formats::Json json;
  json["event"] = "summary";
  json["output"] = output;
  json["num_files"] = num_files;
  json["read_bytes"] = report.read_bytes;
  json["written_bytes"] = report.written_bytes;
  json["resumed_bytes"] = report.resumed_bytes;
  json["seconds"] = report.total_seconds;
  json["prepare_seconds"] = report.prepare_seconds;
  json["warnings"] = report.warnings;
  json["publish_seconds"] = report.publish_seconds;
  json["peak_memory_bytes"] = peak_memory(report);
  json["ranks"] = formats::Json::array();
  for (const exec::RankReport& rank : report.ranks) {
    formats::Json entry;
    entry["read_bytes"] = rank.read_bytes;
    entry["written_bytes"] = rank.written_bytes;
    entry["taken_bytes"] = rank.taken_bytes;
    entry["num_asked"] = rank.num_asked;
    entry["longest_answer_seconds"] = rank.longest_answer_seconds;
    entry["measure_seconds"] = rank.measure_seconds;
    entry["merge_seconds"] = rank.merge_seconds;
    entry["read_wait_seconds"] = rank.read_wait_seconds;
    entry["write_wait_seconds"] = rank.write_wait_seconds;
    entry["journal_seconds"] = rank.journal_seconds;
    entry["peak_memory_bytes"] = rank.peak_memory_bytes;
    json["ranks"].push_back(std::move(entry));
  }
  return json.dump() + "\n";
}

std::string already_complete_text(const std::string& output) {
  return output + " is complete, and made of this configuration and these inputs: nothing is left to do\n";
}

std::string already_complete_json(const std::string& output) {
  formats::Json json;
  json["event"] = "already_complete";
  json["output"] = output;
  return json.dump() + "\n";
}

}  // namespace moeweld::app
