#include "app/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "moeweld/base/text.h"
#include "moeweld/formats/json.h"

namespace moeweld::app {

namespace {

constexpr auto kLiveInterval = std::chrono::milliseconds(250);
constexpr auto kLogInterval = std::chrono::seconds(10);

double gigabytes_per_second(std::uint64_t bytes, double seconds) { return seconds > 0 ? static_cast<double>(bytes) / 1e9 / seconds : 0; }

std::string eta(double seconds) {
  const auto whole = std::llround(seconds);
  return whole >= 3600 ? fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
                       : fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::uint64_t peak_memory(const exec::MergeReport& report) {
  std::uint64_t peak = 0;
  for (const exec::RankReport& rank : report.ranks) peak = std::max(peak, rank.peak_memory_bytes);
  return peak;
}

}  // namespace

ProgressPrinter::ProgressPrinter(std::uint64_t total_output_bytes, bool json, bool quiet)
    : total_output_bytes_(total_output_bytes), json_(json), quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

ProgressPrinter::~ProgressPrinter() { finish(); }

std::string ProgressPrinter::line(const exec::Progress& progress, double seconds) const {
  const double fraction = progress.total_written_bytes == 0
                              ? 1.0
                              : static_cast<double>(progress.written_bytes) / static_cast<double>(progress.total_written_bytes);
  const double share =
      total_output_bytes_ == 0 ? 1.0 : static_cast<double>(progress.total_written_bytes) / static_cast<double>(total_output_bytes_);
  const double scale = share > 0 ? 1.0 / share : 1.0;
  const auto written = static_cast<std::uint64_t>(fraction * static_cast<double>(total_output_bytes_));
  const double read_rate = gigabytes_per_second(static_cast<std::uint64_t>(static_cast<double>(progress.read_bytes) * scale), seconds);
  const double write_rate = gigabytes_per_second(written, seconds);
  const double left = fraction > 0 ? seconds * (1 - fraction) / fraction : 0;
  if (json_) {
    formats::Json json;
    json["event"] = "progress";
    json["fraction"] = fraction;
    json["written_bytes"] = written;
    json["total_bytes"] = total_output_bytes_;
    json["read_gb_per_s"] = read_rate;
    json["write_gb_per_s"] = write_rate;
    json["eta_seconds"] = left;
    return json.dump();
  }
  return fmt::format("{:3.0f} %  {} of {} written   read {:.1f} GB/s  write {:.1f} GB/s   ETA {}", 100 * fraction, format_bytes(written),
                     format_bytes(total_output_bytes_), read_rate, write_rate, eta(left));
}

void ProgressPrinter::update(const exec::Progress& progress) {
  if (quiet_) return;
  const auto now = std::chrono::steady_clock::now();
  const bool live = terminal_ && !json_;
  if (now - last_ < (live ? std::chrono::steady_clock::duration(kLiveInterval) : std::chrono::steady_clock::duration(kLogInterval))) return;
  last_ = now;
  const std::string text = line(progress, std::chrono::duration<double>(now - start_).count());
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
  text += fmt::format("stages: measure {}, merge {}, publish {}", format_duration(measure),
                      format_duration(slowest - std::min(slowest, measure)), format_duration(report.publish_seconds));
  if (report.ranks.size() > 1 && slowest > 0)
    text +=
        fmt::format("; slowest rank {} (+{:.0f} % over the fastest)", slowest_rank, 100 * (slowest - fastest) / std::max(fastest, 1e-9));
  return text + "\nverify with: moeweld verify " + output + "\n";
}

std::string summary_json(const exec::MergeReport& report, std::size_t num_files, const std::string& output) {
  formats::Json json;
  json["event"] = "summary";
  json["output"] = output;
  json["num_files"] = num_files;
  json["read_bytes"] = report.read_bytes;
  json["written_bytes"] = report.written_bytes;
  json["seconds"] = report.total_seconds;
  json["publish_seconds"] = report.publish_seconds;
  json["peak_memory_bytes"] = peak_memory(report);
  json["ranks"] = formats::Json::array();
  for (const exec::RankReport& rank : report.ranks) {
    formats::Json entry;
    entry["read_bytes"] = rank.read_bytes;
    entry["written_bytes"] = rank.written_bytes;
    entry["measure_seconds"] = rank.measure_seconds;
    entry["merge_seconds"] = rank.merge_seconds;
    entry["read_wait_seconds"] = rank.read_wait_seconds;
    entry["write_wait_seconds"] = rank.write_wait_seconds;
    entry["peak_memory_bytes"] = rank.peak_memory_bytes;
    json["ranks"].push_back(std::move(entry));
  }
  return json.dump() + "\n";
}

}  // namespace moeweld::app
