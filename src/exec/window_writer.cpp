#include "exec/window_writer.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "moeweld/base/checked.h"
#include "moeweld/base/trace.h"

namespace moeweld::exec {

namespace {

/// While some digest, others wait for the disk: so many requests keep a fast one busy (docs/decisions/013-team-without-a-barrier.md).
constexpr int kWriterThreads = 4;
/// Files that one thread keeps open; when there are more, what they hold is synced and all are closed. A process may have 1024 as a rule.
constexpr std::size_t kMostOpenFiles = 128;

}  // namespace

namespace {

/// Adds to the last of `runs` what continues it.
void append(std::vector<RunDigests>& runs, const plan::FileRun& run, std::span<const Digest> digests) {
  if (!runs.empty() && runs.back().run.file == run.file && runs.back().run.end == run.begin) {
    runs.back().run.end = run.end;
    runs.back().digests.insert(runs.back().digests.end(), digests.begin(), digests.end());
  } else {
    runs.push_back({run, {digests.begin(), digests.end()}});
  }
}

}  // namespace

WindowWriter::WindowWriter(Storage& storage, const plan::MergePlan& plan, const std::string& directory, IoMode mode, BufferPool& windows,
                           Keeping keep, OutputWriter* output_writer)
    : storage_(storage),
      plan_(plan),
      directory_(directory),
      mode_(mode),
      windows_(windows),
      output_writer_(output_writer),
      keep_(std::move(keep)) {}

void WindowWriter::add_run(const plan::FileRun& run) {
  if (runs_.empty()) position_ = run.begin;
  const bool is_last_full = run_ + 1 == runs_.size() && position_ == runs_.back().end;
  if (!runs_.empty() && !is_last_full && runs_.back().file == run.file && runs_.back().end == run.begin) {
    runs_.back().end = run.end;
  } else {
    runs_.push_back(run);
  }
  if (keep_.in_one_thread || output_writer_ != nullptr || !threads_.empty()) return;
  for (int i = 0; i < kWriterThreads; ++i) {
    threads_.emplace_back([this, i] {
      trace::name_thread("writer " + std::to_string(i));
      this->run();
    });
  }
}

WindowWriter::~WindowWriter() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    abandoned_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
  if (own_.runs.empty() || failure_) return;
  try {
    sync(own_);
  } catch (...) {  // then a restart does it again
  }
}

std::span<std::byte> WindowWriter::reserve(std::uint32_t file, std::uint64_t offset, std::uint64_t max_bytes) {
  if (run_ + 1 < runs_.size() && position_ == runs_[run_].end) position_ = runs_[++run_].begin;
  if (run_ >= runs_.size() || runs_[run_].file != file || position_ != offset) {
    throw Error(ErrorCode::kInternal, "the output is not written in the order of the plan", plan_.output_files[file].name);
  }
  if (current_.buffer.size() == 0) {
    const auto start = std::chrono::steady_clock::now();
    current_ = {windows_.acquire(), file, position_, 0};
    wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const std::lock_guard lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    if (current_.buffer.size() == 0) throw Error(ErrorCode::kInternal, "the output windows were closed while writing");
  }
  const std::uint64_t room = std::min(windows_.buffer_bytes() - current_.size, runs_[run_].end - position_);
  return current_.buffer.span().subspan(current_.size, std::min(room, max_bytes));
}

void WindowWriter::commit(std::uint64_t num_bytes) {
  current_.size += num_bytes;
  position_ += num_bytes;
  if (current_.size == windows_.buffer_bytes() || position_ == runs_[run_].end) submit();
}

void WindowWriter::submit() {
  current_.begin = position_ - current_.size;
  Window window = std::exchange(current_, {});
  if (holds_) {
    held_.push_back(std::move(window));
    return;
  }
  if (output_writer_ != nullptr) return deliver(std::move(window));
  {
    const std::lock_guard lock(mutex_);
    pending_.push_back(std::move(window));
  }
  changed_.notify_all();
  drain();
}

void WindowWriter::deliver(Window window) {
  digest(window);
  const auto start = std::chrono::steady_clock::now();
  output_writer_->write({window.file, window.begin, std::span<const std::byte>(window.buffer.data(), window.size)});
  wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  {
    const std::lock_guard lock(mutex_);
    written_bytes_ += window.size * plan_.output_files[window.file].num_places();
  }
  windows_.release(std::move(window.buffer));
}

void WindowWriter::hold() { holds_ = true; }

std::span<std::byte> WindowWriter::held(std::uint32_t file, std::uint64_t offset, std::uint64_t max_bytes) {
  const auto part_of = [&](Window& window, std::uint64_t begin) -> std::span<std::byte> {
    if (window.buffer.size() == 0 || window.file != file || offset < begin || offset >= begin + window.size) return {};
    return window.buffer.span().subspan(offset - begin, std::min(max_bytes, begin + window.size - offset));
  };
  for (Window& window : held_) {
    if (const std::span<std::byte> part = part_of(window, window.begin); !part.empty()) return part;
  }
  const std::span<std::byte> part = part_of(current_, position_ - current_.size);
  if (part.empty()) throw Error(ErrorCode::kInternal, "bytes of the output are no longer held", plan_.output_files[file].name);
  return part;
}

void WindowWriter::release() {
  holds_ = false;
  if (output_writer_ != nullptr) {
    for (Window& window : std::exchange(held_, {})) deliver(std::move(window));
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    for (Window& window : held_) pending_.push_back(std::move(window));
  }
  held_.clear();
  changed_.notify_all();
  drain();
}

void WindowWriter::drain() {
  if (!keep_.in_one_thread) return;
  try {
    while (!pending_.empty()) {
      Window window = std::move(pending_.front());
      pending_.pop_front();
      handle(std::move(window), own_);
    }
  } catch (...) {
    failure_ = std::current_exception();
    throw;
  }
}

void WindowWriter::finish() {
  const bool complete = runs_.empty() || (run_ + 1 == runs_.size() && position_ == runs_.back().end);
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  const trace::Span span(trace::Kind::kWait, "wait for writers");
  const auto start = std::chrono::steady_clock::now();
  for (std::thread& thread : threads_) thread.join();
  wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (failure_) std::rethrow_exception(failure_);
  if (!own_.runs.empty()) sync(own_);
  if (!complete) throw Error(ErrorCode::kInternal, "a rank ended before it had written its share");
  for (const auto& [place, window] : digests_by_place_) append(digests_, window.run, window.digests);
}

std::uint64_t WindowWriter::written_bytes() const {
  const std::lock_guard lock(mutex_);
  return written_bytes_;
}

void WindowWriter::run() {
  Unsynced unsynced;
  try {
    while (true) {
      std::optional<Window> window = next_window(unsynced);
      if (window) {
        handle(std::move(*window), unsynced);
        continue;
      }
      if (!unsynced.runs.empty()) sync(unsynced);
      const std::lock_guard lock(mutex_);
      if (abandoned_ || (stop_ && pending_.empty())) break;
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    // Whoever waits for a window would wait for ever.
    windows_.close();
  }
}

void WindowWriter::handle(Window window, Unsynced& unsynced) {
  write(window, unsynced);
  {
    const std::lock_guard lock(mutex_);
    written_bytes_ += window.size * plan_.output_files[window.file].num_places();
  }
  windows_.release(std::move(window.buffer));
  if (keep_.finished && Clock::now() - unsynced.since >= keep_.interval) sync(unsynced);
}

std::optional<WindowWriter::Window> WindowWriter::next_window(const Unsynced& unsynced) {
  std::unique_lock lock(mutex_);
  const auto has_news = [this] { return stop_ || !pending_.empty(); };
  if (unsynced.runs.empty() || !keep_.finished) {
    changed_.wait(lock, has_news);
  } else {
    changed_.wait_until(lock, unsynced.since + keep_.interval, has_news);
  }
  if (abandoned_ || pending_.empty()) return std::nullopt;
  Window window = std::move(pending_.front());
  pending_.pop_front();
  return window;
}

void WindowWriter::sync(Unsynced& unsynced) {
  const trace::Span span(trace::Kind::kJournal, "sync and journal");
  const auto start = Clock::now();
  std::set<std::uint32_t> files;
  for (const RunDigests& run : unsynced.runs) files.insert(run.run.file);
  for (const std::uint32_t file : files) {
    for (const std::unique_ptr<OutputFile>& place : unsynced.files.at(file)) place->sync();
  }
  if (keep_.finished) keep_.finished(std::exchange(unsynced.runs, {}));
  unsynced.runs.clear();
  const std::lock_guard lock(mutex_);
  if (!stop_) journal_seconds_ += seconds_since(start);
}

void WindowWriter::close_surplus(Unsynced& unsynced) {
  std::size_t open = 0;
  for (const auto& [index, places] : unsynced.files) open += places.size();
  if (open <= kMostOpenFiles) return;
  if (!unsynced.runs.empty()) sync(unsynced);
  unsynced.files.clear();
}

std::vector<Digest> WindowWriter::digest(const Window& window) {
  const std::span<const std::byte> bytes(window.buffer.data(), window.size);
  // Windows start on digest chunks: runs do, and a window is a whole number of them.
  std::vector<Digest> digests;
  const trace::Span span(trace::Kind::kWrite, "digest", window.size);
  for (std::uint64_t begin = 0; begin < window.size; begin += kDigestChunkBytes) {
    digests.push_back(digest_of(bytes.subspan(begin, std::min(kDigestChunkBytes, window.size - begin))));
  }
  const std::lock_guard lock(mutex_);
  digests_by_place_[{window.file, window.begin}] = {{window.file, window.begin, window.begin + window.size}, digests};
  return digests;
}

void WindowWriter::write(const Window& window, Unsynced& unsynced) {
  const std::vector<Digest> digests = digest(window);
  const std::span<const std::byte> bytes(window.buffer.data(), window.size);
  const std::uint32_t index = window.file;
  if (!unsynced.files.contains(index)) {
    close_surplus(unsynced);
    const plan::PlannedOutputFile& planned = plan_.output_files[index];
    std::vector<std::unique_ptr<OutputFile>>& places = unsynced.files[index];
    places.push_back(storage_.open_output(directory_ + "/" + planned.name, mode_));
    for (const std::string& copy : planned.copies) places.push_back(storage_.open_output(directory_ + "/" + copy, mode_));
  }
  const std::uint64_t aligned = round_down(window.size, kDirectAlignment);
  for (const std::unique_ptr<OutputFile>& file : unsynced.files[index]) {
    if (aligned != 0) file->write(window.begin, bytes.first(aligned));
    if (aligned != window.size) file->write(window.begin + aligned, bytes.subspan(aligned));
  }

  if (unsynced.runs.empty()) unsynced.since = Clock::now();
  append(unsynced.runs, {index, window.begin, window.begin + window.size}, digests);
}

}  // namespace moeweld::exec
