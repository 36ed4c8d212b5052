#include "moeweld/storage/job_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <thread>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "posix_system.h"

namespace moeweld {

namespace {

constexpr const char* kLockSchema = "moeweld.lock/1";
constexpr std::size_t kLargestLockBytes = 4096;
/// Each failed one means that another job was quicker.
constexpr int kAttempts = 5;
/// A launcher returns before the last of its processes has ended; `--resume` right after it should not be refused.
constexpr std::chrono::milliseconds kPatience{2000};
constexpr std::chrono::milliseconds kBetweenLooks{50};

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Fields 3 and 22 of /proc/PID/stat; of no process: nothing.
struct ProcessStat {
  std::string state;
  std::uint64_t start = 0;
};
std::optional<ProcessStat> stat_of(std::int64_t pid) {
  const std::string line = first_line("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t after_name = line.rfind(')');
  if (after_name == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(after_name + 1));
  ProcessStat result;
  fields >> result.state;
  std::string field;
  for (int i = 4; i <= 22; ++i) fields >> field;
  result.start = std::strtoull(field.c_str(), nullptr, 10);
  return result;
}

bool runs_here(const LockHolder& holder) {
  if (holder.pid <= 0) return false;
  if (::kill(static_cast<pid_t>(holder.pid), 0) != 0 && errno != EPERM) return false;
  const std::optional<ProcessStat> found = stat_of(holder.pid);
  if (!found) return true;  // /proc may not be there
  // One that has ended and was not waited for does nothing any more.
  return found->state != "Z" && found->state != "X" && found->start == holder.process_start;
}

std::optional<std::string> read_lock(const std::string& path) {
  const posix::Descriptor descriptor = posix::try_open(path, O_RDONLY);
  if (!descriptor.is_open()) {
    if (errno == ENOENT) return std::nullopt;
    posix::throw_system_error(errno, "read", path);
  }
  std::string text(kLargestLockBytes, '\0');
  const ssize_t count = ::read(descriptor.get(), text.data(), text.size());
  if (count < 0) posix::throw_system_error(errno, "read", path);
  text.resize(static_cast<std::size_t>(count));
  return text;
}

/// Writes a file that was not there. False if it was.
bool create_exclusively(const std::string& path, const std::string& text) {
  const posix::Descriptor descriptor = posix::try_open(path, O_WRONLY | O_CREAT | O_EXCL);
  if (!descriptor.is_open()) {
    if (errno == EEXIST) return false;
    posix::throw_system_error(errno, "create", path);
  }
  const ssize_t count = ::write(descriptor.get(), text.data(), text.size());
  if (count != static_cast<ssize_t>(text.size())) {
    const int error = count < 0 ? errno : ENOSPC;
    static_cast<void>(::unlink(path.c_str()));
    posix::throw_system_error(error, "write", path);
  }
  return true;
}

/// Now, by the clock that the file system stamps files with, which may be another host's.
std::int64_t file_system_seconds(const std::string& path, const std::string& token) {
  const std::string probe = path + ".probe." + token;
  const posix::Descriptor descriptor = posix::try_open(probe, O_WRONLY | O_CREAT | O_EXCL);
  if (!descriptor.is_open()) return ::time(nullptr);  // who may not write here only looks
  struct stat status {};
  const int result = fstat(descriptor.get(), &status);
  static_cast<void>(::unlink(probe.c_str()));
  if (result != 0) posix::throw_system_error(errno, "inspect", probe);
  return status.st_mtim.tv_sec;
}

std::string random_token() {
  std::random_device device;
  std::ostringstream text;
  text << std::hex << device() << device() << "-" << std::dec << getpid();
  return text.str();
}

}  // namespace

std::string lock_text(const LockHolder& holder) {
  std::ostringstream text;
  text << kLockSchema << "\nhost " << holder.host << "\nboot " << holder.boot << "\npid " << holder.pid << "\nstart "
       << holder.process_start << "\nslurm_job " << holder.slurm_job << "\nslurm_restart " << holder.slurm_restart << "\ntoken "
       << holder.token << "\nend\n";
  return text.str();
}

std::optional<LockHolder> parse_lock(const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  if (!std::getline(lines, line) || line != kLockSchema) return std::nullopt;
  std::map<std::string, std::string> fields;
  while (std::getline(lines, line) && line != "end") {
    const std::size_t space = line.find(' ');
    if (space == std::string::npos) return std::nullopt;
    fields[line.substr(0, space)] = line.substr(space + 1);
  }
  if (line != "end") return std::nullopt;
  LockHolder holder;
  holder.host = fields["host"];
  holder.boot = fields["boot"];
  holder.pid = std::strtoll(fields["pid"].c_str(), nullptr, 10);
  holder.process_start = std::strtoull(fields["start"].c_str(), nullptr, 10);
  holder.slurm_job = fields["slurm_job"];
  holder.slurm_restart = fields["slurm_restart"];
  holder.token = fields["token"];
  return holder;
}

LockHolder this_process() {
  LockHolder self;
  char host[256] = "host";
  static_cast<void>(gethostname(host, sizeof host - 1));
  char space[64] = "";
  static_cast<void>(::readlink("/proc/self/ns/pid", space, sizeof space - 1));
  self.host = std::string(host) + (space[0] == '\0' ? "" : "/" + std::string(space));
  self.boot = first_line("/proc/sys/kernel/random/boot_id");
  self.pid = getpid();
  if (const std::optional<ProcessStat> own = stat_of(self.pid)) self.process_start = own->start;
  self.slurm_job = variable("SLURM_JOB_ID");
  self.slurm_restart = variable("SLURM_RESTART_COUNT");
  if (!self.slurm_job.empty() && self.slurm_restart.empty()) self.slurm_restart = "0";
  self.token = random_token();
  return self;
}

bool is_holder_dead(const std::optional<LockHolder>& holder, const LockHolder& self, std::chrono::seconds age, bool runs_here) {
  if (!holder) return age >= kLockDeadAfter;
  if (holder->host == self.host) return holder->boot != self.boot || !runs_here;
  if (!holder->slurm_job.empty() && holder->slurm_job == self.slurm_job && holder->slurm_restart != self.slurm_restart) return true;
  return age >= kLockDeadAfter;
}

std::string LockState::describe() const {
  if (!holder) return "a job that is just beginning, or died while it did";
  const std::string host = holder->host.substr(0, holder->host.find('/'));
  return "process " + std::to_string(holder->pid) + " on " + printable(host, 100) +
         (holder->slurm_job.empty() ? "" : ", SLURM job " + printable(holder->slurm_job, 40)) + ", last seen " +
         std::to_string(age.count()) + " s ago";
}

std::optional<LockState> look_at_lock(const std::string& path) {
  const std::optional<std::string> text = read_lock(path);
  if (!text) return std::nullopt;
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  LockState state;
  state.holder = parse_lock(*text);
  const LockHolder self = this_process();
  state.age = std::chrono::seconds(std::max<std::int64_t>(0, file_system_seconds(path, self.token) - status.st_mtim.tv_sec));
  state.is_dead = is_holder_dead(state.holder, self, state.age, state.holder && runs_here(*state.holder));
  return state;
}

JobLock::JobLock(const std::string& path) : path_(path), self_(this_process()) {
  const auto end_of_patience = std::chrono::steady_clock::now() + kPatience;
  for (int attempt = 0; !create_exclusively(path_, lock_text(self_)); ++attempt) {
    std::optional<LockState> state = look_at_lock(path_);
    while (state && !state->is_dead && state->holder && state->holder->host == self_.host &&
           std::chrono::steady_clock::now() < end_of_patience) {
      std::this_thread::sleep_for(kBetweenLooks);
      state = look_at_lock(path_);
    }
    if (!state) continue;
    if (!state->is_dead || attempt == kAttempts) {
      throw Error(ErrorCode::kOutputExists,
                  "another job is writing this output: " + state->describe() +
                      ". Wait for it, end it, or choose another name; if it is not there any more, try again in " +
                      std::to_string(kLockDeadAfter.count()) + " s.",
                  path_);
    }
    // Two jobs may find it dead; one of them moves it away. Who moves away a lock that is younger than what was judged gives it back.
    const std::string aside = path_ + ".dead." + self_.token;
    if (::rename(path_.c_str(), aside.c_str()) != 0) continue;
    const std::optional<std::string> moved = read_lock(aside);
    if (moved && parse_lock(*moved) != state->holder) static_cast<void>(::link(aside.c_str(), path_.c_str()));
    static_cast<void>(::unlink(aside.c_str()));
  }
  thread_ = std::thread([this] { beat(); });
}

JobLock::~JobLock() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  try {
    if (is_ours()) static_cast<void>(::unlink(path_.c_str()));
  } catch (const Error&) {  // it will be found dead
  }
}

bool JobLock::is_ours() const {
  const std::optional<std::string> text = read_lock(path_);
  return text && parse_lock(*text) == self_;
}

void JobLock::beat() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kLockHeartbeat, [this] { return stop_; })) {
    try {
      if (!is_ours()) {
        is_lost_ = true;
        return;
      }
      static_cast<void>(::utimensat(AT_FDCWD, path_.c_str(), nullptr, 0));
    } catch (const Error&) {  // a file system that stumbles; the next beat may do better
    }
  }
}

void JobLock::check() const {
  const std::lock_guard lock(mutex_);
  if (!is_lost_) return;
  throw Error(ErrorCode::kOutputExists,
              "another job has taken this output over, because this one had shown no sign of life for " +
                  std::to_string(kLockDeadAfter.count()) + " s",
              path_);
}

}  // namespace moeweld
