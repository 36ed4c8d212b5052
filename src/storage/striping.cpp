#include "moeweld/storage/striping.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "moeweld/base/checked.h"
#include "moeweld/base/trace.h"

namespace moeweld {

namespace {

constexpr std::uint64_t kStripeBytes = 16 * kMiB;
constexpr std::uint64_t kBytesPerTarget = 8 * kGiB;
constexpr std::uint64_t kMostTargets = 64;

/// Exit code, or the error number as a negative one.
int run_program(const std::vector<std::string>& arguments) {
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  pid_t child = 0;
  if (const int error = posix_spawnp(&child, pointers[0], nullptr, nullptr, pointers.data(), environ); error != 0) return -error;
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return -errno;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

}  // namespace

Striping choose_striping(std::uint64_t largest_file_bytes, int most_writers) {
  if (largest_file_bytes < kGiB) return {1, kStripeBytes};
  const std::uint64_t by_size = (largest_file_bytes + kBytesPerTarget - 1) / kBytesPerTarget;
  const auto writers = static_cast<std::uint64_t>(std::max(1, most_writers));
  return {static_cast<int>(std::min(kMostTargets, std::max(by_size, writers))), kStripeBytes};
}

std::string set_striping(Storage& storage, const std::string& directory, const Striping& striping) {
  if (storage.space(directory).file_system != "lustre") return {};
  const std::string what = std::to_string(striping.count) + " stripes of " + std::to_string(striping.size_bytes / kMiB) + " MiB";
  const trace::Span span(trace::Kind::kWrite, "lfs setstripe", 0, directory);
  const int result =
      run_program({"lfs", "setstripe", "-c", std::to_string(striping.count), "-S", std::to_string(striping.size_bytes), directory});
  if (result == 0) return {};
  const std::string why =
      result < 0 ? std::string("cannot be run: ") + std::strerror(-result) : "ended with code " + std::to_string(result);
  return "Lustre: the directory's own striping, since 'lfs setstripe' for " + what + " " + why;
}

}  // namespace moeweld
