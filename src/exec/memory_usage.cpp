#include <fstream>
#include <string>

#include "moeweld/exec/execute.h"

namespace moeweld::exec {

namespace {

/// A line such as "VmRSS:    1234 kB" of /proc/self/status.
std::uint64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    std::uint64_t kibibytes = 0;
    if (word == key && status >> kibibytes) return kibibytes * 1024;
  }
  return 0;
}

}  // namespace

std::uint64_t resident_bytes() { return status_bytes("VmRSS:"); }
std::uint64_t peak_resident_bytes() { return status_bytes("VmHWM:"); }

}  // namespace moeweld::exec
