#include <fmt/format.h>

#include "app/run.h"
#include "app/statistics_page.h"
#include "moeweld/hdf5/statistics_file.h"

namespace moeweld::app {

namespace {

/// FILE.h5 → FILE.html
std::string page_beside(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  const std::size_t dot = path.find_last_of('.');
  const bool has_ending = dot != std::string::npos && (slash == std::string::npos || dot > slash + 1) && dot != 0;
  return (has_ending ? path.substr(0, dot) : path) + ".html";
}

}  // namespace

int run_report(Storage& storage, const Options& options) {
  const hdf5::StatisticsFile file = hdf5::read_statistics(storage, options.input);
  const std::string page = options.output.empty() ? page_beside(options.input) : options.output;
  if (page == options.input) throw Error(ErrorCode::kUsage, "--output names the file that is read", page);
  storage.write_text(page, statistics_page(file));
  if (!options.quiet) fmt::print("{}\n", page);
  return 0;
}

}  // namespace moeweld::app
