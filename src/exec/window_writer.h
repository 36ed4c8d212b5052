#pragma once
/// Assembles a rank's share of the output in aligned windows; threads of their own digest and write them.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "exec/buffers.h"
#include "exec/clock.h"
#include "moeweld/base/digest.h"
#include "moeweld/exec/output_writer.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/schedule.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

/// Digests of the chunks of one run, in order; the run starts at chunk `run.begin / kDigestChunkBytes`.
struct RunDigests {
  plan::FileRun run;
  std::vector<Digest> digests;
};

template <class Archive>
void serialize(Archive& archive, RunDigests& run) {
  archive(run.run, run.digests);
}

/// Runs whose bytes have been synced, at most about `interval` after they were written.
struct Keeping {
  std::function<void(std::vector<RunDigests>)> finished;
  std::chrono::steady_clock::duration interval{};
  bool in_one_thread = false;  ///< everything happens in the thread that calls
};

/// The output stream of one rank: its runs, one after the other, filled strictly in order. Runs may be added while it is filled.
class WindowWriter {
 public:
  /// `directory`: where the plan's output files are, created with their sizes already.
  /// `keep`: told what is on stable storage, from the writer's threads; may be empty. With `output_writer` windows go
  /// there, from the thread that fills them, and there are no threads and no journal of them.
  WindowWriter(Storage& storage, const plan::MergePlan& plan, const std::string& directory, IoMode mode, BufferPool& windows, Keeping keep,
               OutputWriter* output_writer = nullptr);
  ~WindowWriter();
  WindowWriter(const WindowWriter&) = delete;
  WindowWriter& operator=(const WindowWriter&) = delete;

  /// `run` begins on a digest chunk. One that continues the last, whose end has not been filled yet, makes it longer.
  void add_run(const plan::FileRun& run);

  /// Memory for the next bytes of the stream: at least one, at most `max_bytes`, as many as the window and the run have room for. `file`
  /// and `offset` are where the caller means to write; they must be where the stream stands. May wait for the disk; rethrows what writing
  /// threw.
  std::span<std::byte> reserve(std::uint32_t file, std::uint64_t offset, std::uint64_t max_bytes);
  /// Says that the first `num_bytes` of what reserve() gave are filled.
  void commit(std::uint64_t num_bytes);

  /// From now on windows that are full stay in memory, until release(). There must be enough of them: reserve() would wait for ever.
  void hold();
  /// Memory of bytes that were committed since hold(), from `offset` on: at least one, at most `max_bytes`.
  std::span<std::byte> held(std::uint32_t file, std::uint64_t offset, std::uint64_t max_bytes);
  /// Hands the windows that were held to the disk.
  void release();

  /// Everything is filled: waits for the disk, syncs the files. Rethrows what writing threw. Without it the destructor drops what has not
  /// been handed to the disk, syncs the rest and tells `keep`.
  void finish();

  /// After finish(); neighbours that were written one after the other are joined.
  const std::vector<RunDigests>& digests() const { return digests_; }
  std::uint64_t written_bytes() const;
  double wait_seconds() const { return wait_seconds_; }
  /// Of all threads, until the last window was written: what only a later restart needs. The last sync is every merge's.
  double journal_seconds() const { return journal_seconds_; }

 private:
  struct Window {
    AlignedBuffer buffer;
    std::uint32_t file = 0;
    std::uint64_t begin = 0;  // in the file
    std::uint64_t size = 0;
  };
  /// What one thread has written and not synced yet.
  struct Unsynced {
    std::map<std::uint32_t, std::vector<std::unique_ptr<OutputFile>>> files;  // open, synced or not, each with its copies
    std::vector<RunDigests> runs;
    Clock::time_point since;
  };
  void submit();
  void deliver(Window window);
  /// Of the window's chunks; they are kept, too.
  std::vector<Digest> digest(const Window& window);
  void run();
  /// Writes one window and gives it back; syncs when it is time to.
  void handle(Window window, Unsynced& unsynced);
  /// In one thread: writes what is pending.
  void drain();
  /// Whether there was a window; without one, waits until the interval of `unsynced` has passed.
  std::optional<Window> next_window(const Unsynced& unsynced);
  void write(const Window& window, Unsynced& unsynced);
  void sync(Unsynced& unsynced);
  void close_surplus(Unsynced& unsynced);

  Storage& storage_;
  const plan::MergePlan& plan_;
  const std::string directory_;
  const IoMode mode_;
  BufferPool& windows_;
  OutputWriter* const output_writer_;
  const Keeping keep_;

  Window current_;
  bool holds_ = false;
  std::vector<Window> held_;
  std::vector<plan::FileRun> runs_;
  std::size_t run_ = 0;
  std::uint64_t position_ = 0;  // in the file of runs_[run_]
  double wait_seconds_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Window> pending_;
  std::exception_ptr failure_;
  bool stop_ = false;
  bool abandoned_ = false;
  std::uint64_t written_bytes_ = 0;
  double journal_seconds_ = 0;
  std::map<std::pair<std::uint32_t, std::uint64_t>, RunDigests> digests_by_place_;  // a window's each, by file and offset
  std::vector<RunDigests> digests_;                                                 // of all
  std::vector<std::thread> threads_;
  Unsynced own_;  // where there are no threads
};

}  // namespace moeweld::exec
