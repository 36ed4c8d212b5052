#include "moeweld/storage/write_behind.h"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

namespace moeweld {

WriteBehind::WriteBehind(const std::string& path) : descriptor_(::open(path.c_str(), O_WRONLY | O_CLOEXEC)) {}

WriteBehind::~WriteBehind() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

WriteBehind::WriteBehind(WriteBehind&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

WriteBehind& WriteBehind::operator=(WriteBehind&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

void WriteBehind::start(std::uint64_t offset, std::uint64_t size_bytes) const noexcept {
  if (descriptor_ < 0) return;
  static_cast<void>(::sync_file_range(descriptor_, static_cast<off64_t>(offset), static_cast<off64_t>(size_bytes), SYNC_FILE_RANGE_WRITE));
}

}  // namespace moeweld
