#include "app/statistics_output.h"

#include <fmt/format.h>

#include <algorithm>

#include "moeweld/base/error.h"
#include "moeweld/hdf5/statistics_file.h"

namespace moeweld::app {

void check_statistics_path(Storage& storage, const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  const std::string directory = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  if (slash != std::string::npos && slash + 1 == path.size())
    throw Error(ErrorCode::kUsage, "--stats names a directory; it is a file that is written", path);
  if (!storage.is_directory(directory))
    throw Error(ErrorCode::kIo, "there is no such directory, so --stats cannot be written in it", directory);
  if (storage.is_directory(path)) throw Error(ErrorCode::kIo, "is a directory, so --stats cannot be written to it", path);
  if (!storage.is_writable_directory(directory))
    throw Error(ErrorCode::kIo, "no file can be created here, so --stats cannot be written. Check permissions, quota and mount.",
                directory);
}

void write_statistics_file(Storage& storage, const plan::MergePlan& plan, exec::MergeReport& report, const Options& options) {
  hdf5::StatisticsFile file;
  file.version = MOEWELD_VERSION;
  file.title = plan.title;
  file.config = plan.config_text;
  file.plan_digest = to_hex(plan::identity_digest(plan));
  file.seed = plan.seed;
  file.is_resumed = report.resumed_bytes != 0;
  for (const plan::PlannedModel& model : plan.models) file.models.push_back(model.reference);
  file.tensors = std::move(report.statistics);
  try {
    hdf5::write_statistics(storage, options.stats_file, file);
  } catch (const Error& error) {
    throw Error(error.code(), options.output + " is complete, but its statistics could not be written: " + error.problems().front().message,
                options.stats_file);
  }
  report.statistics = std::move(file.tensors);
}

std::string statistics_text(const exec::MergeReport& report, const std::string& path) {
  const auto measured =
      std::count_if(report.statistics.begin(), report.statistics.end(), [](const auto& tensor) { return tensor.is_measured; });
  if (static_cast<std::size_t>(measured) == report.statistics.size())
    return fmt::format("statistics of {} tensors: {} (moeweld report draws them)\n", measured, path);
  return fmt::format("statistics of {} of {} tensors: {}; an earlier run had computed all or part of the others, which have none\n",
                     measured, report.statistics.size(), path);
}

}  // namespace moeweld::app
