#include "verify/chunk_digests.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <thread>

#include "moeweld/base/checked.h"

namespace moeweld::verify {

namespace {

/// One read: large enough for full speed with direct I/O, small enough that a few threads stay within caches.
constexpr std::uint64_t kChunksPerRead = 4;
constexpr auto kProgressInterval = std::chrono::milliseconds(100);

struct Extent {
  std::size_t file = 0;
  std::uint64_t first_chunk = 0;  ///< counted through all files
  std::uint64_t offset = 0;
  std::uint64_t size_bytes = 0;
};

std::vector<Extent> make_extents(const std::vector<ChunkedFile>& files, std::uint64_t begin, std::uint64_t end) {
  std::vector<Extent> extents;
  for (std::size_t index = 0; index < files.size(); ++index) {
    const ChunkedFile& file = files[index];
    const std::uint64_t last = std::min(end, file.first_chunk + file.num_chunks());
    for (std::uint64_t chunk = std::max(begin, file.first_chunk); chunk < last; chunk += kChunksPerRead) {
      const std::uint64_t offset = (chunk - file.first_chunk) * kDigestChunkBytes;
      const std::uint64_t stop = std::min((std::min(chunk + kChunksPerRead, last) - file.first_chunk) * kDigestChunkBytes, file.size_bytes);
      extents.push_back({index, chunk, offset, stop - offset});
    }
  }
  return extents;
}

/// Threads that take extents one after the other until none is left.
class DigestPool {
 public:
  DigestPool(Storage& storage, const std::vector<ChunkedFile>& files, std::uint64_t begin, std::uint64_t end)
      : storage_(storage), files_(files), begin_(begin), extents_(make_extents(files, begin, end)) {
    result_.digests.resize(end - begin);
  }

  ChunkDigests run(int threads, const std::function<void(std::uint64_t)>& progress) {
    const auto num_workers = static_cast<int>(std::clamp<std::size_t>(extents_.size(), 1, static_cast<std::size_t>(std::max(threads, 1))));
    running_ = num_workers;
    std::vector<std::jthread> workers;
    std::exception_ptr failure;
    try {
      for (int worker = 0; worker < num_workers; ++worker) workers.emplace_back([this] { work(); });
      wait(progress);
    } catch (...) {
      failure = std::current_exception();
      stop_ = true;
    }
    workers.clear();
    if (failure) std::rethrow_exception(failure);
    if (internal_failure_) std::rethrow_exception(internal_failure_);
    result_.read_bytes = read_bytes_;
    return std::move(result_);
  }

 private:
  void wait(const std::function<void(std::uint64_t)>& progress) {
    std::unique_lock lock(mutex_);
    while (!finished_.wait_for(lock, kProgressInterval, [this] { return running_ == 0; })) {
      lock.unlock();
      if (progress) progress(read_bytes_);
      lock.lock();
    }
    lock.unlock();
    if (progress) progress(read_bytes_);
  }

  void work() {
    try {
      digest_extents();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!internal_failure_) internal_failure_ = std::current_exception();
      stop_ = true;
    }
    const std::lock_guard lock(mutex_);
    --running_;
    finished_.notify_all();
  }

  void digest_extents() {
    AlignedBuffer buffer(kChunksPerRead * kDigestChunkBytes);
    std::unique_ptr<InputFile> input;
    std::size_t open_file = files_.size();
    for (std::size_t next = next_++; next < extents_.size() && !stop_; next = next_++) {
      const Extent& extent = extents_[next];
      if (has_failed(extent.file)) continue;
      try {
        if (extent.file != open_file) {
          input = storage_.open_input(files_[extent.file].path, IoMode::kAuto);
          open_file = extent.file;
        }
        digest_extent(extent, *input, {buffer.data(), kChunksPerRead * kDigestChunkBytes});
      } catch (const Error& error) {
        const std::lock_guard lock(mutex_);
        if (failed_.insert(extent.file).second) result_.problems.add(error);
      }
    }
  }

  void digest_extent(const Extent& extent, InputFile& input, std::span<std::byte> buffer) {
    // Whole pages, so that the end of a file can be read past the page cache too.
    input.read(extent.offset, buffer.first(round_up(extent.size_bytes, kDirectAlignment)));
    for (std::uint64_t offset = 0, chunk = extent.first_chunk - begin_; offset < extent.size_bytes; offset += kDigestChunkBytes, ++chunk) {
      result_.digests[chunk] = digest_of(buffer.subspan(offset, std::min(kDigestChunkBytes, extent.size_bytes - offset)));
    }
    read_bytes_ += extent.size_bytes;
  }

  bool has_failed(std::size_t file) {
    const std::lock_guard lock(mutex_);
    return failed_.contains(file);
  }

  Storage& storage_;
  const std::vector<ChunkedFile>& files_;
  const std::uint64_t begin_;
  const std::vector<Extent> extents_;
  ChunkDigests result_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<std::uint64_t> read_bytes_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  std::condition_variable finished_;
  int running_ = 0;
  std::set<std::size_t> failed_;
  std::exception_ptr internal_failure_;
};

}  // namespace

ChunkDigests digest_chunks(Storage& storage, const std::vector<ChunkedFile>& files, std::uint64_t begin, std::uint64_t end, int threads,
                           const std::function<void(std::uint64_t)>& progress) {
  return DigestPool(storage, files, begin, end).run(threads, progress);
}

}  // namespace moeweld::verify
