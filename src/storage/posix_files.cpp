#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <limits>

#include "moeweld/base/error.h"
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

class PosixInputFile final : public InputFile {
 public:
  PosixInputFile(const std::string& path, IoMode mode) : path_(path), mode_(mode) {
    // Without O_NONBLOCK the open of a named pipe would wait for ever.
    buffered_ = try_open(path, O_RDONLY | O_NONBLOCK);
    if (!buffered_.is_open()) throw_system_error(errno, "open", path);
    struct stat status {};
    if (fstat(buffered_.get(), &status) != 0) throw_system_error(errno, "inspect", path);
    if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::kIo, "cannot read: it is not a plain file", path);
    if (mode != IoMode::kBuffered) direct_.open(path, O_RDONLY);
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
                        (mode_ == IoMode::kDirect || !is_cached(offset, buffer.size()));
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

 private:
  // The first page and the last: neighbours were read together, or evicted together.
  bool is_cached(std::uint64_t offset, std::size_t size_bytes) {
    if (size_bytes == 0) return true;
    const std::uint64_t end = std::min<std::uint64_t>(offset + size_bytes, identity().size_bytes);
    return offset < end && is_page_cached(offset) && is_page_cached((end - 1) / kDirectAlignment * kDirectAlignment);
  }

  bool is_page_cached(std::uint64_t offset) {
    std::byte probe{};
    iovec vector{&probe, 1};
    ssize_t count = 0;
    do {
      count = preadv2(buffered_.get(), &vector, 1, static_cast<off_t>(offset), RWF_NOWAIT);
    } while (count < 0 && errno == EINTR);
    if (count >= 0) return true;
    // A file system that cannot tell (EOPNOTSUPP) counts as not cached.
    return false;
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
  Descriptor buffered_;
  DirectDescriptor direct_;
};

class PosixOutputFile final : public OutputFile {
 public:
  PosixOutputFile(const std::string& path, IoMode mode) : path_(path) {
    buffered_ = try_open(path, O_WRONLY | O_CREAT | O_NONBLOCK);
    if (!buffered_.is_open()) throw_system_error(errno, "open for writing", path);
    if (mode != IoMode::kBuffered) direct_.open(path, O_WRONLY);
  }

  void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    if (offset > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max()) - bytes.size()) {
      throw_system_error(EFBIG, "write " + std::to_string(bytes.size()) + " bytes at offset " + std::to_string(offset), path_);
    }
    const bool direct = is_direct_aligned(offset, bytes.data(), bytes.size());
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

  void sync() override { posix::sync(buffered_.get(), path_); }

 private:
  std::string path_;
  Descriptor buffered_;
  DirectDescriptor direct_;
};

}  // namespace

std::unique_ptr<InputFile> open_input(const std::string& path, IoMode mode) { return std::make_unique<PosixInputFile>(path, mode); }
std::unique_ptr<OutputFile> open_output(const std::string& path, IoMode mode) { return std::make_unique<PosixOutputFile>(path, mode); }

}  // namespace moeweld::posix
