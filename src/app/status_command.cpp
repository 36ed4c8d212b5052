#include <fmt/format.h>

#include "app/run.h"
#include "moeweld/base/text.h"
#include "moeweld/exec/status.h"
#include "moeweld/formats/json.h"

namespace moeweld::app {

namespace {

constexpr int kComplete = 0;
constexpr int kRunning = 7;
constexpr int kNothing = 3;
constexpr int kResumable = 75;

}  // namespace

int run_status(Storage& storage, const Options& options) {
  const exec::OutputStatus status = exec::status_of(storage, options.input);
  int code = kNothing;
  const char* state = "nothing";
  std::string text = options.input + ": there is no such directory, and nothing to continue\n";
  const std::string done = fmt::format(
      "{} of {} written ({:.1f} %), in {} {}", format_bytes(status.finished_bytes), format_bytes(status.total_bytes),
      status.total_bytes == 0 ? 100.0 : 100.0 * static_cast<double>(status.finished_bytes) / static_cast<double>(status.total_bytes),
      status.num_attempts, status.num_attempts == 1 ? "run" : "runs");
  if (status.is_running) {
    code = kRunning;
    state = "running";
    text = fmt::format("{}: being written by {}; {}\n", options.input, status.holder, done);
  } else if (status.is_resumable) {
    code = kResumable;
    state = "resumable";
    text = fmt::format("{}: interrupted; {}. Continue with the same command and --resume\n", options.input, done);
  } else if (status.is_complete) {
    code = kComplete;
    state = "complete";
    text = options.input + ": complete\n";
  }
  if (options.json) {
    formats::Json json;
    json["schema"] = "moeweld.status/1";
    json["output"] = options.input;
    json["state"] = state;
    json["finished_bytes"] = status.finished_bytes;
    json["total_bytes"] = status.total_bytes;
    json["runs"] = status.num_attempts;
    if (status.is_running) json["holder"] = status.holder;
    text = json.dump(-1, ' ', false, formats::Json::error_handler_t::replace) + "\n";
  }
  fmt::print("{}", text);
  return code;
}

}  // namespace moeweld::app
