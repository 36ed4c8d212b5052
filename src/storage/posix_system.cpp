#include "posix_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "moeweld/base/error.h"

namespace moeweld::posix {

void throw_system_error(int error_number, const std::string& action, const std::string& path) {
  const ErrorCode code = error_number == ENOSPC || error_number == EDQUOT ? ErrorCode::kNoSpace : ErrorCode::kIo;
  throw Error(code, "cannot " + action + ": " + std::generic_category().message(error_number), path);
}

Descriptor::~Descriptor() {
  if (value_ >= 0) ::close(value_);
}

Descriptor::Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(value_, other.value_);
  return *this;
}

void Descriptor::close(const std::string& path) {
  const int value = std::exchange(value_, -1);
  // Linux closes the descriptor even when it says EINTR.
  if (value >= 0 && ::close(value) != 0 && errno != EINTR) throw_system_error(errno, "close", path);
}

Descriptor try_open(const std::string& path, int flags) {
  int value = -1;
  do {
    value = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (value < 0 && errno == EINTR);
  return Descriptor(value);
}

FileIdentity identity_of(int descriptor, const std::string& path) {
  struct stat status {};
  if (fstat(descriptor, &status) != 0) throw_system_error(errno, "inspect", path);
  return {static_cast<std::uint64_t>(status.st_size), std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
}

void sync(int descriptor, const std::string& path) {
  int result = 0;
  do {
    result = fdatasync(descriptor);
  } while (result != 0 && errno == EINTR);
  if (result != 0) throw_system_error(errno, "bring to stable storage", path);
}

bool is_direct_aligned(std::uint64_t offset, const void* data, std::size_t size_bytes) {
  return (offset | reinterpret_cast<std::uintptr_t>(data) | size_bytes) % kDirectAlignment == 0;
}

}  // namespace moeweld::posix
