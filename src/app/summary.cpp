#include "app/summary.h"

#include <fmt/format.h>

#include <algorithm>

#include "app/progress.h"
#include "moeweld/base/text.h"

namespace moeweld::app {

namespace {

double busy_seconds(const exec::RankReport& rank) { return rank.measure_seconds + rank.merge_seconds; }

struct Aggregate {
  double measure_seconds = 0;     ///< the slowest rank's
  double merge_seconds = 0;       ///< "
  double read_wait_seconds = 0;   ///< the longest
  double write_wait_seconds = 0;  ///< "
  std::uint64_t peak_memory_bytes = 0;
  std::size_t slowest_rank = 0;
  double skew = 0;  ///< of the slowest rank against the mean: 0.04 is 4 % longer
};

Aggregate aggregate(const exec::MergeReport& report) {
  Aggregate result;
  double total = 0;
  for (std::size_t rank = 0; rank < report.ranks.size(); ++rank) {
    const exec::RankReport& entry = report.ranks[rank];
    result.measure_seconds = std::max(result.measure_seconds, entry.measure_seconds);
    result.merge_seconds = std::max(result.merge_seconds, entry.merge_seconds);
    result.read_wait_seconds = std::max(result.read_wait_seconds, entry.read_wait_seconds);
    result.write_wait_seconds = std::max(result.write_wait_seconds, entry.write_wait_seconds);
    result.peak_memory_bytes = std::max(result.peak_memory_bytes, entry.peak_memory_bytes);
    if (busy_seconds(entry) > busy_seconds(report.ranks[result.slowest_rank])) result.slowest_rank = rank;
    total += busy_seconds(entry);
  }
  if (total > 0) result.skew = busy_seconds(report.ranks[result.slowest_rank]) * static_cast<double>(report.ranks.size()) / total - 1;
  return result;
}

}  // namespace

std::string summary_text(const exec::MergeReport& report, const plan::MergePlan& plan, const std::string& output_directory) {
  const Aggregate all = aggregate(report);
  const std::size_t num_files = plan.output_files.size();
  std::string text = fmt::format("{}: {} file{}, {} in {} (read {}, write {}), peak {}{}\n", output_directory, num_files,
                                 num_files == 1 ? "" : "s", format_bytes(plan.output_bytes()), format_duration(report.total_seconds),
                                 format_rate(static_cast<double>(report.read_bytes), report.total_seconds),
                                 format_rate(static_cast<double>(report.written_bytes), report.total_seconds),
                                 format_memory(all.peak_memory_bytes), report.ranks.size() == 1 ? "" : " per rank");
  text += fmt::format("measure {}, merge {}, publish {}; waited {} for input, {} for output", format_duration(all.measure_seconds),
                      format_duration(all.merge_seconds), format_duration(report.publish_seconds), format_duration(all.read_wait_seconds),
                      format_duration(all.write_wait_seconds));
  if (report.ranks.size() > 1) text += fmt::format("; slowest rank {} (+{:.0f} %)", all.slowest_rank, 100 * all.skew);
  return text + "\nverify with: moeweld verify " + output_directory + "\n";
}

formats::Json summary_json(const exec::MergeReport& report, const plan::MergePlan& plan, const std::string& output_directory) {
  const Aggregate all = aggregate(report);
  formats::Json ranks = formats::Json::array();
  for (const exec::RankReport& rank : report.ranks) {
    ranks.push_back({{"read_bytes", rank.read_bytes},
                     {"written_bytes", rank.written_bytes},
                     {"measure_seconds", rank.measure_seconds},
                     {"merge_seconds", rank.merge_seconds},
                     {"read_wait_seconds", rank.read_wait_seconds},
                     {"write_wait_seconds", rank.write_wait_seconds},
                     {"peak_memory_bytes", rank.peak_memory_bytes}});
  }
  return {{"event", "summary"},
          {"output", output_directory},
          {"files", plan.output_files.size()},
          {"output_bytes", plan.output_bytes()},
          {"read_bytes", report.read_bytes},
          {"written_bytes", report.written_bytes},
          {"seconds", report.total_seconds},
          {"measure_seconds", all.measure_seconds},
          {"merge_seconds", all.merge_seconds},
          {"publish_seconds", report.publish_seconds},
          {"peak_memory_bytes", all.peak_memory_bytes},
          {"slowest_rank", all.slowest_rank},
          {"slowest_rank_skew", all.skew},
          {"seed", plan.seed},
          {"ranks", std::move(ranks)}};
}

}  // namespace moeweld::app
