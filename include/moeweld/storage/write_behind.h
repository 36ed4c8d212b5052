#pragma once
/// For files that a library writes through the page cache: lets the kernel begin to bring them to the disk while there is still work to do.

#include <cstdint>
#include <string>

namespace moeweld {

/// One file. What it does is a hint: it never fails, and does nothing where the system does not know how.
class WriteBehind {
 public:
  WriteBehind() = default;
  /// The file may be open elsewhere as well.
  explicit WriteBehind(const std::string& path);
  ~WriteBehind();
  WriteBehind(WriteBehind&& other) noexcept;
  WriteBehind& operator=(WriteBehind&& other) noexcept;
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  /// Starts writing out what this host's page cache holds of the range, and returns. Waits only where the disk's queue is full, which keeps
  /// the kernel from stopping the writer later, for longer. Nothing is on stable storage because of it. `size_bytes` 0: to the end of the
  /// file.
  void start(std::uint64_t offset, std::uint64_t size_bytes) const noexcept;

 private:
  int descriptor_ = -1;
};

}  // namespace moeweld
