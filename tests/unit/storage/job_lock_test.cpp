#include "moeweld/storage/job_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <memory>

#include "unit/expect_error.h"
#include "unit/temporary_directory.h"

namespace moeweld {
namespace {

LockHolder holder_on(const std::string& host, const std::string& boot) {
  LockHolder holder;
  holder.host = host;
  holder.boot = boot;
  holder.pid = 17;
  holder.process_start = 4;
  holder.token = "t";
  return holder;
}

TEST(JobLock, TextReadsBack) {
  LockHolder holder = this_process();
  holder.slurm_job = "991";
  EXPECT_EQ(parse_lock(lock_text(holder)), holder);
  const std::string text = lock_text(holder);
  for (std::size_t cut = 1; cut < text.size(); ++cut) EXPECT_EQ(parse_lock(text.substr(0, text.size() - cut - 1)), std::nullopt) << cut;
}

TEST(JobLock, DeathIsJudgedByWhatCanBeKnown) {
  const LockHolder self = holder_on("here", "boot-2");
  const std::chrono::seconds young{1};
  const std::chrono::seconds old = kLockDeadAfter;
  // On this host the kernel knows, however old the heartbeat is.
  EXPECT_FALSE(is_holder_dead(holder_on("here", "boot-2"), self, old, true));
  EXPECT_TRUE(is_holder_dead(holder_on("here", "boot-2"), self, young, false));
  EXPECT_TRUE(is_holder_dead(holder_on("here", "boot-1"), self, young, true)) << "a pid of an earlier boot";
  // Elsewhere the heartbeat does.
  EXPECT_FALSE(is_holder_dead(holder_on("there", "boot-3"), self, young, false));
  EXPECT_TRUE(is_holder_dead(holder_on("there", "boot-3"), self, old, false));
  // SLURM runs a job once at a time.
  LockHolder requeued = self;
  requeued.slurm_job = "5";
  requeued.slurm_restart = "1";
  LockHolder before = holder_on("there", "boot-3");
  before.slurm_job = "5";
  before.slurm_restart = "0";
  EXPECT_TRUE(is_holder_dead(before, requeued, young, false));
  before.slurm_job = "6";
  EXPECT_FALSE(is_holder_dead(before, requeued, young, false));
  // Unreadable: just being written, or never finished.
  EXPECT_FALSE(is_holder_dead(std::nullopt, self, young, false));
  EXPECT_TRUE(is_holder_dead(std::nullopt, self, old, false));
}

TEST(JobLock, TheSecondJobIsRefusedAndTheNextOneNot) {
  const TemporaryDirectory directory;
  const std::string path = directory / "out.lock";
  {
    const JobLock first(path);
    expect_error([&] { const JobLock second(path); }, ErrorCode::kOutputExists, {"out.lock", "process " + std::to_string(getpid())});
    EXPECT_FALSE(look_at_lock(path)->is_dead);
    first.check();
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  const JobLock third(path);
}

TEST(JobLock, ALockOfAJobThatWasKilledIsTakenOver) {
  const TemporaryDirectory directory;
  const std::string path = directory / "out.lock";
  const pid_t child = fork();
  if (child == 0) {
    new JobLock(path);
    _exit(0);  // no destructor
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(std::filesystem::exists(path));
  EXPECT_TRUE(look_at_lock(path)->is_dead);
  const JobLock lock(path);
  EXPECT_EQ(look_at_lock(path)->holder->pid, getpid());
  // Nothing else is left beside it.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 1);
}

TEST(JobLock, AJobThatIsJustEndingIsWaitedFor) {
  const TemporaryDirectory directory;
  const std::string path = directory / "out.lock";
  const pid_t child = fork();
  if (child == 0) {
    new JobLock(path);
    usleep(700'000);
    _exit(0);  // no destructor
  }
  while (!std::filesystem::exists(path) || !look_at_lock(path)->holder) usleep(1000);
  EXPECT_FALSE(look_at_lock(path)->is_dead);
  // Nobody has waited for the child: it is a zombie then, and does not count as running.
  const JobLock lock(path);
  EXPECT_EQ(look_at_lock(path)->holder->pid, getpid());
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
}

TEST(JobLock, AHeartbeatOfAnotherHostCountsForTwoMinutes) {
  const TemporaryDirectory directory;
  const std::string path = directory.write("out.lock", lock_text(holder_on("elsewhere", "boot")));
  expect_error([&] { const JobLock lock(path); }, ErrorCode::kOutputExists, {"process 17 on elsewhere"});
  const timespec past[2] = {{time(nullptr) - 121, 0}, {time(nullptr) - 121, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), past, 0), 0);
  const JobLock lock(path);
}

}  // namespace
}  // namespace moeweld
