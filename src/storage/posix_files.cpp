#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <limits>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/base/trace.h"
#include "posix_system.h"

namespace moeweld::posix {
namespace {

// Linux moves at most this much in one call; a page less than 2 GiB.
constexpr std::size_t kMaxCallBytes = 0x7ffff000;

/// A direct descriptor, given up for good once the file system says that it does not do direct I/O after all.
class DirectDescriptor {
 public:
  void open(const std::string& path, int flags) {
    descriptor_ = try_open(path, flags | O_DIRECT);
    if (!descriptor_.is_open() && errno != EINVAL) throw_system_error(errno, "open", path);
    usable_ = descriptor_.is_open();
  }
  bool is_usable() const { return usable_.load(std::memory_order_relaxed); }
  void give_up() { usable_.store(false, std::memory_order_relaxed); }
  int get() const { return descriptor_.get(); }
  void close(const std::string& path) { descriptor_.close(path); }

 private:
  Descriptor descriptor_;
  std::atomic<bool> usable_{false};
};

// Whether all pages of the range (aligned offset, not empty) are in the page cache. Maps them without touching them: preadv2 with
// RWF_NOWAIT would start readahead, and so fill the cache that it asks about.
bool is_resident(int descriptor, std::uint64_t offset, std::size_t size_bytes) {
  const auto page_bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t skew = static_cast<std::size_t>(offset % page_bytes);
  size_bytes += skew;
  void* mapping = mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, descriptor, static_cast<off_t>(offset - skew));
  if (mapping == MAP_FAILED) return false;
  std::vector<unsigned char> resident((size_bytes + page_bytes - 1) / page_bytes);
  const bool known = mincore(mapping, size_bytes, resident.data()) == 0;
  munmap(mapping, size_bytes);
  return known && std::all_of(resident.begin(), resident.end(), [](unsigned char flags) { return (flags & 1) != 0; });
}

bool is_page_ready(int descriptor, std::uint64_t offset) {
  std::byte probe{};
  iovec vector{&probe, 1};
  ssize_t count = 0;
  do {
    count = preadv2(descriptor, &vector, 1, static_cast<off_t>(offset), RWF_NOWAIT);
  } while (count < 0 && errno == EINTR);
  return count >= 0;  // a file system that cannot tell counts as not cached
}

class PosixInputFile final : public InputFile {
 public:
  PosixInputFile(const std::string& path, IoMode mode, std::shared_ptr<IoGate> gate) : path_(path), mode_(mode), gate_(std::move(gate)) {
    const trace::Span span(trace::Kind::kRead, "open", 0, path_);
    // Without O_NONBLOCK the open of a named pipe would wait for ever.
    buffered_ = try_open(path, O_RDONLY | O_NONBLOCK);
    if (!buffered_.is_open()) throw_system_error(errno, "open", path);
    struct stat status {};
    if (fstat(buffered_.get(), &status) != 0) throw_system_error(errno, "inspect", path);
    if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::kIo, "cannot read: it is not a plain file", path);
    if (mode != IoMode::kBuffered) direct_.open(path, O_RDONLY);
    if (mode != IoMode::kAuto) return;
    // To others the kernel calls every page resident.
    can_see_residency_ = geteuid() == 0 || status.st_uid == geteuid() || faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) == 0;
    if (!can_see_residency_) {
      probe_ = try_open(path, O_RDONLY);
      if (!probe_.is_open()) throw_system_error(errno, "open", path);
      // Without readahead a probe brings in one page only.
      static_cast<void>(posix_fadvise(probe_.get(), 0, 0, POSIX_FADV_RANDOM));
    }
  }

  const std::string& path() const override { return path_; }
  FileIdentity identity() const override { return identity_of(buffered_.get(), path_); }

  void read(std::uint64_t offset, std::span<std::byte> buffer) override {
    if (offset > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max()) - buffer.size()) {
      throw Error(
          ErrorCode::kInvalidInput,
          "a read of " + std::to_string(buffer.size()) + " bytes at offset " + std::to_string(offset) + " is beyond the end of every file",
          path_);
    }
    const bool direct = direct_.is_usable() && is_direct_aligned(offset, buffer.data(), buffer.size()) &&
                        (mode_ == IoMode::kDirect || !seems_cached(offset, buffer.size()));
    const IoTurn turn(gate_.get());
    const trace::Span span(trace::Kind::kRead, "read", buffer.size(), path_);
    std::size_t done = 0;
    while (done < buffer.size()) {
      // After a short read the rest may be unaligned; the page cache takes it.
      const bool use_direct = direct && direct_.is_usable() && done % kDirectAlignment == 0;
      const std::size_t size_bytes = std::min(buffer.size() - done, kMaxCallBytes);
      const ssize_t count =
          pread(use_direct ? direct_.get() : buffered_.get(), buffer.data() + done, size_bytes, static_cast<off_t>(offset + done));
      if (count > 0) {
        done += static_cast<std::size_t>(count);
      } else if (count == 0) {
        require_only_padding_missing(offset, buffer, done);
        return;
      } else if (use_direct && errno == EINVAL) {
        direct_.give_up();
      } else if (errno != EINTR) {
        throw_system_error(errno, "read " + std::to_string(buffer.size()) + " bytes at offset " + std::to_string(offset), path_);
      }
    }
  }

  bool is_cached(std::uint64_t offset, std::uint64_t size_bytes) override {
    const std::uint64_t end = std::min(offset + size_bytes, identity().size_bytes);
    return mode_ == IoMode::kAuto && can_see_residency_ && offset < end &&
           is_resident(buffered_.get(), offset, static_cast<std::size_t>(end - offset));
  }

 private:
  bool seems_cached(std::uint64_t offset, std::size_t size_bytes) {
    const std::uint64_t end = std::min<std::uint64_t>(offset + size_bytes, identity().size_bytes);
    if (offset >= end) return true;
    if (can_see_residency_) return is_resident(buffered_.get(), offset, static_cast<std::size_t>(end - offset));
    // Asked once per file, since asking starts a read of the page.
    int known = first_page_cached_.load(std::memory_order_relaxed);
    if (known < 0) {
      known = is_page_ready(probe_.get(), offset) ? 1 : 0;
      first_page_cached_.store(known, std::memory_order_relaxed);
    }
    return known == 1;
  }

  void require_only_padding_missing(std::uint64_t offset, std::span<std::byte> buffer, std::size_t done) {
    const bool aligned = is_direct_aligned(offset, buffer.data(), buffer.size());
    if (aligned && buffer.size() - done < kDirectAlignment) return;
    throw Error(ErrorCode::kInvalidInput,
                "the file ends early: " + std::to_string(buffer.size()) + " bytes are wanted at offset " + std::to_string(offset) +
                    ", but only " + std::to_string(done) + " are there (the file has " + std::to_string(identity().size_bytes) +
                    " bytes). It was cut or replaced; compare it with its source",
                path_);
  }

  std::string path_;
  IoMode mode_;
  const std::shared_ptr<IoGate> gate_;
  Descriptor buffered_;
  DirectDescriptor direct_;
  bool can_see_residency_ = false;
  Descriptor probe_;
  std::atomic<int> first_page_cached_{-1};
};

class PosixOutputFile final : public OutputFile {
 public:
  PosixOutputFile(const std::string& path, IoMode mode, std::shared_ptr<IoGate> gate) : path_(path), gate_(std::move(gate)) {
    const trace::Span span(trace::Kind::kWrite, "open", 0, path_);
    buffered_ = try_open(path, O_WRONLY | O_CREAT | O_NONBLOCK);
    if (!buffered_.is_open()) throw_system_error(errno, "open for writing", path);
    if (mode != IoMode::kBuffered) direct_.open(path, O_WRONLY);
  }

  void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    if (offset > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max()) - bytes.size()) {
      throw_system_error(EFBIG, "write " + std::to_string(bytes.size()) + " bytes at offset " + std::to_string(offset), path_);
    }
    const bool direct = is_direct_aligned(offset, bytes.data(), bytes.size());
    const IoTurn turn(gate_.get());
    const trace::Span span(trace::Kind::kWrite, "write", bytes.size(), path_);
    std::size_t done = 0;
    while (done < bytes.size()) {
      const bool use_direct = direct && direct_.is_usable() && done % kDirectAlignment == 0;
      const std::size_t size_bytes = std::min(bytes.size() - done, kMaxCallBytes);
      const ssize_t count =
          pwrite(use_direct ? direct_.get() : buffered_.get(), bytes.data() + done, size_bytes, static_cast<off_t>(offset + done));
      if (count > 0) {
        done += static_cast<std::size_t>(count);
      } else if (count == 0) {
        throw_system_error(EIO, "write " + std::to_string(bytes.size()) + " bytes at offset " + std::to_string(offset), path_);
      } else if (use_direct && errno == EINVAL) {
        direct_.give_up();
      } else if (errno != EINTR) {
        throw_system_error(errno, "write " + std::to_string(bytes.size()) + " bytes at offset " + std::to_string(offset), path_);
      }
    }
  }

  void sync() override {
    const trace::Span span(trace::Kind::kWrite, "sync", 0, path_);
    posix::sync(buffered_.get(), path_);
  }

 private:
  std::string path_;
  const std::shared_ptr<IoGate> gate_;
  Descriptor buffered_;
  DirectDescriptor direct_;
};

}  // namespace

std::unique_ptr<InputFile> open_input(const std::string& path, IoMode mode, std::shared_ptr<IoGate> gate) {
  return std::make_unique<PosixInputFile>(path, mode, std::move(gate));
}
std::unique_ptr<OutputFile> open_output(const std::string& path, IoMode mode, std::shared_ptr<IoGate> gate) {
  return std::make_unique<PosixOutputFile>(path, mode, std::move(gate));
}

}  // namespace moeweld::posix
