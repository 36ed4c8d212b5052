#pragma once
/// The one seam between moeweld and a file system. POSIX here; tests put a faulty one in its place.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace moeweld {

/// What identifies the content of an input between planning and reading.
struct FileIdentity {
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ns = 0;  ///< modification time, nanoseconds since the epoch
  bool operator==(const FileIdentity&) const = default;
};

enum class IoMode : std::uint8_t {
  kAuto,      ///< direct where the data is not cached and the file system allows it, else buffered
  kBuffered,  ///< through the page cache
  kDirect,    ///< past the page cache where the file system allows it (O_DIRECT), else buffered
};

/// Alignment of offset, length and memory for direct I/O.
constexpr std::size_t kDirectAlignment = 4096;

/// A file open for positioned reads. Any thread may read at any time.
class InputFile {
 public:
  virtual ~InputFile() = default;
  virtual const std::string& path() const = 0;
  virtual FileIdentity identity() const = 0;

  /// Reads exactly buffer.size() bytes at offset. Throws Error(kInvalidInput) with path, offset and both lengths if the file ends early,
  /// Error(kIo) otherwise. Short reads and EINTR are retried. Goes past the page cache when the file was opened kDirect (or kAuto and the
  /// range is not cached) and offset, size and address are multiples of kDirectAlignment. A read aligned in this way may, in every mode,
  /// run past the end of the file by less than kDirectAlignment; the rest of the buffer is then unspecified.
  virtual void read(std::uint64_t offset, std::span<std::byte> buffer) = 0;

  /// Whether reading the range would only copy memory: all of it lies in the page cache and would be taken from there. False where that is
  /// not known.
  virtual bool is_cached(std::uint64_t /*offset*/, std::uint64_t /*size_bytes*/) { return false; }
};

/// A file being written. Ranks write disjoint ranges of the same file through handles of their own.
class OutputFile {
 public:
  virtual ~OutputFile() = default;

  /// Writes all bytes at offset; retried on short writes. Error(kNoSpace) on ENOSPC and EDQUOT, Error(kIo) otherwise. Direct when the file
  /// was opened kDirect or kAuto and everything is aligned; an unaligned piece goes buffered.
  virtual void write(std::uint64_t offset, std::span<const std::byte> bytes) = 0;

  /// Returns when what was written through this handle is on stable storage (fdatasync).
  virtual void sync() = 0;
};

struct DirectoryEntry {
  std::string name;
  bool is_directory = false;
};

struct SpaceInfo {
  std::uint64_t available_bytes = 0;
  std::string file_system;  ///< "ext4", "lustre", "tmpfs", … or "unknown"
};

/// Paths are UTF-8, used as given. All methods throw Error(kIo) with the path and the system's words, unless said otherwise.
class Storage {
 public:
  virtual ~Storage() = default;

  virtual std::unique_ptr<InputFile> open_input(const std::string& path, IoMode mode) = 0;
  /// Opens for writing; created if absent; never truncated (see create_sized).
  virtual std::unique_ptr<OutputFile> open_output(const std::string& path, IoMode mode) = 0;
  /// Creates (or resizes) a file of `size_bytes`, reserving space by fallocate(2) where the file system can, else by ftruncate; never by
  /// writing zeros. Error(kNoSpace) when it does not fit.
  virtual void create_sized(const std::string& path, std::uint64_t size_bytes) = 0;

  /// Whole small file; Error(kInvalidInput) above max_bytes.
  virtual std::string read_text(const std::string& path, std::uint64_t max_bytes) = 0;
  /// Writes a whole small file durably under a temporary name, then renames it.
  virtual void write_text(const std::string& path, const std::string& content) = 0;

  /// Nothing if it is not there; symlinks are followed.
  virtual std::optional<FileIdentity> identity(const std::string& path) = 0;
  virtual bool is_directory(const std::string& path) = 0;
  virtual bool exists(const std::string& path) = 0;
  /// Names without path, sorted; without . and ..
  virtual std::vector<DirectoryEntry> list(const std::string& path) = 0;
  virtual void make_directories(const std::string& path) = 0;
  /// Atomic within a file system; the parent directories are synced. Fails if `to` exists as a non-empty directory.
  virtual void rename(const std::string& from, const std::string& to) = 0;
  /// Recursive; nothing happens if it is not there. Does not follow symlinks.
  virtual void remove_all(const std::string& path) = 0;
  virtual void sync_directory(const std::string& path) = 0;
  virtual SpaceInfo space(const std::string& path) = 0;
  /// Whether files can be created in the directory (tried, not guessed).
  virtual bool is_writable_directory(const std::string& path) = 0;
};

/// The operating system's files.
std::shared_ptr<Storage> make_posix_storage();

/// Memory for direct I/O: aligned to 2 MiB where large and backed by transparent huge pages when the kernel gives them. Move-only.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t size_bytes);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::span<std::byte> span() { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace moeweld
