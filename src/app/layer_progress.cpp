#include "app/layer_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "app/progress.h"
#include "moeweld/formats/json.h"

namespace moeweld::app {

using formats::Json;

LayerProgress::LayerProgress(bool json, bool quiet)
    : json_(json), quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1), last_(std::chrono::steady_clock::now()) {}

LayerProgress::~LayerProgress() { finish(); }

void LayerProgress::update(std::size_t step, std::size_t num_steps) {
  if (quiet_) return;
  const auto now = std::chrono::steady_clock::now();
  const bool live = terminal_ && !json_;
  if (now - last_ < (live ? std::chrono::steady_clock::duration(kLiveInterval) : std::chrono::steady_clock::duration(kLogInterval))) return;
  last_ = now;
  if (json_) {
    fmt::print(stderr, "{}\n", Json({{"event", "progress"}, {"layer", step + 1}, {"layers", num_steps}}).dump());
  } else if (live) {
    fmt::print(stderr, "\r\033[K forward pass: layer {} of {}", step + 1, num_steps);
    live_ = true;
  } else {
    fmt::print(stderr, "forward pass: layer {} of {}\n", step + 1, num_steps);
  }
  std::fflush(stderr);
}

void LayerProgress::finish() {
  if (live_) fmt::print(stderr, "\r\033[K");
  live_ = false;
}

}  // namespace moeweld::app
