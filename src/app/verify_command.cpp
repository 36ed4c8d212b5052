#include <fmt/format.h>

#include "app/interruption.h"
#include "app/run.h"
#include "moeweld/base/text.h"
#include "moeweld/verify/verify.h"

namespace moeweld::app {

int run_verify(Peers& peers, Storage& storage, const Options& options) {
  const verify::VerifyReport report =
      verify::verify(peers, storage, options.input, options.threads, [](std::uint64_t) { stop_if_interrupted(); });
  if (peers.rank() != 0 || options.quiet) return 0;
  if (options.log_json) {
    fmt::print("{{\"event\": \"verified\", \"files\": {}, \"tensors\": {}, \"read_bytes\": {}, \"seconds\": {}}}\n", report.num_files,
               report.num_tensors, report.read_bytes, report.seconds);
  } else {
    fmt::print("{}: {} files, {} tensors, {} as the manifest says (read in {})\n", options.input, report.num_files, report.num_tensors,
               format_bytes(report.read_bytes), format_duration(report.seconds));
  }
  return 0;
}

}  // namespace moeweld::app
