#pragma once
/// What became of an output: for people, and for scripts that decide whether to queue a job again.

#include <cstdint>
#include <string>

#include "moeweld/storage/storage.h"

namespace moeweld::exec {

struct OutputStatus {
  bool is_complete = false;   ///< OUT is there
  bool is_running = false;    ///< a living job holds OUT.lock
  bool is_resumable = false;  ///< OUT.partial has a journal
  std::string holder;         ///< of the lock, where is_running
  std::uint64_t finished_bytes = 0;
  std::uint64_t total_bytes = 0;
  std::uint32_t num_attempts = 0;
};

/// Reads the lock and the journals; changes nothing. Throws Error for a journal that cannot be read.
OutputStatus status_of(Storage& storage, const std::string& output_directory);

/// "out/" → "out.lock".
std::string lock_path(const std::string& output_directory);
/// "out/" → "out.heartbeats".
std::string heartbeat_path(const std::string& output_directory);

}  // namespace moeweld::exec
