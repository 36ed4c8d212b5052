#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <system_error>

#include "moeweld/base/error.h"
#include "moeweld/base/trace.h"
#include "posix_system.h"

namespace moeweld {
namespace {

namespace fs = std::filesystem;

std::string parent_of(const std::string& path) {
  fs::path normal = fs::path(path).lexically_normal();
  if (!normal.has_filename()) normal = normal.parent_path();  // "out/" names out
  const std::string parent = normal.parent_path().string();
  return parent.empty() ? "." : parent;
}

// Unlike for any two writers, on any two hosts that share the directory.
std::string temporary_name(const std::string& path) {
  static std::atomic<std::uint64_t> counter{0};
  char host[256] = "host";
  static_cast<void>(gethostname(host, sizeof host - 1));
  return path + ".tmp." + host + "." + std::to_string(getpid()) + "." + std::to_string(counter++);
}

std::string file_system_name(std::uint64_t magic) {
  switch (magic) {
    case EXT4_SUPER_MAGIC:
      return "ext4";
    case XFS_SUPER_MAGIC:
      return "xfs";
    case BTRFS_SUPER_MAGIC:
      return "btrfs";
    case TMPFS_MAGIC:
      return "tmpfs";
    case NFS_SUPER_MAGIC:
      return "nfs";
    case OVERLAYFS_SUPER_MAGIC:
      return "overlayfs";
    case FUSE_SUPER_MAGIC:
      return "fuse";
    case CEPH_SUPER_MAGIC:
      return "ceph";
    case V9FS_MAGIC:
      return "9p";
    case SMB2_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
      return "cifs";
    case 0x0BD00BD0:
      return "lustre";
    case 0x47504653:
      return "gpfs";
    case 0x19830326:
      return "beegfs";
    case 0x2FC12FC1:
      return "zfs";
    case 0xaad7aaea:
      return "panfs";
    default:
      return "unknown";
  }
}

class PosixStorage final : public Storage {
 public:
  explicit PosixStorage(IoGates gates) : gates_(std::move(gates)) {}

  std::unique_ptr<InputFile> open_input(const std::string& path, IoMode mode) override {
    return posix::open_input(path, mode, gates_.reads);
  }
  std::unique_ptr<OutputFile> open_output(const std::string& path, IoMode mode) override {
    return posix::open_output(path, mode, gates_.writes);
  }

  void create_sized(const std::string& path, std::uint64_t size_bytes) override {
    const trace::Span span(trace::Kind::kWrite, "make room", 0, path);
    const std::string action = "make room for " + std::to_string(size_bytes) + " bytes";
    if (size_bytes > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) posix::throw_system_error(EFBIG, action, path);
    posix::Descriptor descriptor = posix::try_open(path, O_WRONLY | O_CREAT);
    if (!descriptor.is_open()) posix::throw_system_error(errno, "create", path);
    const auto size = static_cast<off_t>(size_bytes);
    if (retry([&] { return ftruncate(descriptor.get(), size); }) != 0) posix::throw_system_error(errno, action, path);
    if (size_bytes > 0 && retry([&] { return fallocate(descriptor.get(), 0, 0, size); }) != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
      posix::throw_system_error(errno, action, path);
    }
    descriptor.close(path);
  }

  std::string read_text(const std::string& path, std::uint64_t max_bytes) override {
    const auto file = open_input(path, IoMode::kBuffered);
    const std::uint64_t size_bytes = file->identity().size_bytes;
    if (size_bytes > max_bytes) {
      throw Error(
          ErrorCode::kInvalidInput,
          "the file has " + std::to_string(size_bytes) + " bytes, but at most " + std::to_string(max_bytes) + " are read of such a file",
          path);
    }
    std::string text(static_cast<std::size_t>(size_bytes), '\0');
    file->read(0, std::as_writable_bytes(std::span(text)));
    return text;
  }

  void write_text(const std::string& path, const std::string& content) override {
    const std::string temporary = temporary_name(path);
    try {
      posix::Descriptor descriptor = posix::try_open(temporary, O_WRONLY | O_CREAT | O_EXCL);
      if (!descriptor.is_open()) posix::throw_system_error(errno, "create", path);
      descriptor.close(path);
      const auto file = open_output(temporary, IoMode::kBuffered);
      file->write(0, std::as_bytes(std::span(content)));
      file->sync();
      if (::rename(temporary.c_str(), path.c_str()) != 0) posix::throw_system_error(errno, "put in place", path);
    } catch (const Error&) {
      static_cast<void>(::unlink(temporary.c_str()));
      throw;
    }
    sync_directory(parent_of(path));
  }

  std::optional<FileIdentity> identity(const std::string& path) override {
    struct stat status {};
    if (!status_of(path, status)) return std::nullopt;
    return FileIdentity{static_cast<std::uint64_t>(status.st_size),
                        std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
  }

  bool is_directory(const std::string& path) override {
    struct stat status {};
    return status_of(path, status) && S_ISDIR(status.st_mode);
  }

  bool exists(const std::string& path) override {
    struct stat status {};
    return status_of(path, status);
  }

  std::vector<DirectoryEntry> list(const std::string& path) override {
    const trace::Span span(trace::Kind::kRead, "list", 0, path);
    std::vector<DirectoryEntry> entries;
    attempt("list", path, [&](std::error_code& error) {
      for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
        std::error_code unknown;  // a dangling link is no directory
        entries.push_back({it->path().filename().string(), it->is_directory(unknown)});
      }
    });
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return entries;
  }

  void make_directories(const std::string& path) override {
    attempt("create the directory", path, [&](std::error_code& error) { fs::create_directories(path, error); });
    if (!is_directory(path)) posix::throw_system_error(ENOTDIR, "create the directory", path);
  }

  void rename(const std::string& from, const std::string& to) override {
    const trace::Span span(trace::Kind::kWrite, "rename", 0, from);
    if (::rename(from.c_str(), to.c_str()) != 0) posix::throw_system_error(errno, "rename to '" + to + "'", from);
    sync_directory(parent_of(to));
    if (parent_of(from) != parent_of(to)) sync_directory(parent_of(from));
  }

  void remove_all(const std::string& path) override {
    const trace::Span span(trace::Kind::kWrite, "remove", 0, path);
    attempt("remove", path, [&](std::error_code& error) { fs::remove_all(path, error); });
  }

  void sync_directory(const std::string& path) override {
    const trace::Span span(trace::Kind::kWrite, "sync the directory", 0, path);
    const posix::Descriptor descriptor = posix::try_open(path, O_RDONLY | O_DIRECTORY);
    if (!descriptor.is_open()) posix::throw_system_error(errno, "open the directory", path);
    // Some network file systems have nothing to sync in a directory and say EINVAL.
    if (retry([&] { return fsync(descriptor.get()); }) != 0 && errno != EINVAL) {
      posix::throw_system_error(errno, "bring the directory to stable storage", path);
    }
  }

  SpaceInfo space(const std::string& path) override {
    struct statfs status {};
    if (retry([&] { return statfs(path.c_str(), &status); }) != 0) posix::throw_system_error(errno, "ask for the free space", path);
    return {static_cast<std::uint64_t>(status.f_bavail) * static_cast<std::uint64_t>(status.f_bsize),
            file_system_name(static_cast<std::uint64_t>(status.f_type) & 0xffffffffU)};
  }

  bool is_writable_directory(const std::string& path) override {
    if (!is_directory(path)) return false;
    const std::string probe = temporary_name(path + "/.moeweld-probe");
    const posix::Descriptor descriptor = posix::try_open(probe, O_WRONLY | O_CREAT | O_EXCL);
    if (!descriptor.is_open()) return false;
    static_cast<void>(::unlink(probe.c_str()));
    return true;
  }

 private:
  template <typename Call>
  static int retry(Call&& call) {
    int result = 0;
    do {
      result = call();
    } while (result != 0 && errno == EINTR);
    return result;
  }

  static bool status_of(const std::string& path, struct stat& status) {
    const trace::Span span(trace::Kind::kRead, "look at", 0, path);
    if (::stat(path.c_str(), &status) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    posix::throw_system_error(errno, "inspect", path);
  }

  template <typename Action>
  static void attempt(const std::string& what, const std::string& path, Action&& action) {
    std::error_code error;
    action(error);
    if (error) posix::throw_system_error(error.value(), what, path);
  }
  const IoGates gates_;
};

}  // namespace

std::shared_ptr<Storage> make_posix_storage() { return make_posix_storage(IoGates{}); }
std::shared_ptr<Storage> make_posix_storage(IoGates gates) { return std::make_shared<PosixStorage>(std::move(gates)); }

}  // namespace moeweld
