#pragma once
/// One job at a time on one OUT, without flock: a file OUT.lock that says who, with a modification time that says "still there".

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace moeweld {

/// How often a living job touches its lock, and after how long without that it counts as dead on a host that cannot be asked.
constexpr std::chrono::seconds kLockHeartbeat{10};
constexpr std::chrono::seconds kLockDeadAfter{120};

struct LockHolder {
  std::string host;  ///< name, and the namespace that `pid` means something in
  std::string boot;  ///< id of the host's boot
  std::int64_t pid = 0;
  std::uint64_t process_start = 0;  ///< in clock ticks since boot: a pid is used again
  std::string slurm_job;            ///< empty outside SLURM
  std::string slurm_restart;        ///< how often SLURM has requeued the job
  std::string token;                ///< unlike any other lock's
  bool operator==(const LockHolder&) const = default;
};

std::string lock_text(const LockHolder& holder);
/// Nothing if the text is not a whole lock: its job is just writing it, or died while it did.
std::optional<LockHolder> parse_lock(const std::string& text);

/// Who this process is.
LockHolder this_process();

/// Whether the process of a lock is still there: by asking the kernel on the same host and boot, dead on another boot of this host or in an
/// earlier run of this SLURM job, else by the age of the last heartbeat. Pure. `runs_here`: whether this host has such a process.
bool is_holder_dead(const std::optional<LockHolder>& holder, const LockHolder& self, std::chrono::seconds age, bool runs_here);

struct LockState {
  std::optional<LockHolder> holder;
  std::chrono::seconds age{};  ///< since the last heartbeat, by the file system's clock
  bool is_dead = false;
  /// "process 4711 on n17, SLURM job 99, last seen 3 s ago"
  std::string describe() const;
};

/// The lock at `path`; nothing if there is none. Throws Error(kIo).
std::optional<LockState> look_at_lock(const std::string& path);

/// Holds the lock at `path` and keeps it alive from a thread of its own.
class JobLock {
 public:
  /// Takes over a dead job's lock. A holder on this host is given two seconds to end: launchers return before their processes have. Throws
  /// Error(kOutputExists) naming a living holder, Error(kIo) otherwise. The parent directory exists.
  explicit JobLock(const std::string& path);
  /// Removes the lock if it is still this job's.
  ~JobLock();
  JobLock(const JobLock&) = delete;
  JobLock& operator=(const JobLock&) = delete;

  /// Throws Error(kOutputExists) once another job has taken the lock: this one had been without a sign of life for too long.
  void check() const;

 private:
  bool is_ours() const;
  void beat();

  const std::string path_;
  LockHolder self_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  bool is_lost_ = false;
  std::thread thread_;
};

}  // namespace moeweld
