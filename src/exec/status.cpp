#include "moeweld/exec/status.h"

#include "exec/journal.h"
#include "exec/publish.h"
#include "moeweld/storage/job_lock.h"

namespace moeweld::exec {

std::string lock_path(const std::string& output_directory) { return plain_directory(output_directory) + ".lock"; }
std::string heartbeat_path(const std::string& output_directory) { return plain_directory(output_directory) + ".heartbeats"; }

OutputStatus status_of(Storage& storage, const std::string& output_directory) {
  OutputStatus status;
  status.is_complete = storage.is_directory(plain_directory(output_directory));
  if (const auto lock = look_at_lock(lock_path(output_directory)); lock && !lock->is_dead) {
    status.is_running = true;
    status.holder = lock->describe();
  }
  if (const auto journals = read_journals(storage, partial_directory(output_directory))) {
    status.is_resumable = true;
    status.finished_bytes = journals->finished.finished_bytes();
    for (const std::uint64_t size_bytes : journals->work.output_sizes) status.total_bytes += size_bytes;
    status.num_attempts = journals->num_attempts;
  }
  return status;
}

}  // namespace moeweld::exec
