#pragma once
/// The operating system's calls with errors as exceptions.

#include <cstddef>
#include <cstdint>
#include <string>

#include "moeweld/storage/io_gate.h"
#include "moeweld/storage/storage.h"

namespace moeweld::posix {

/// Throws for `error_number`: kNoSpace for ENOSPC and EDQUOT, else kIo; "cannot <action>: <system's words>".
[[noreturn]] void throw_system_error(int error_number, const std::string& action, const std::string& path);

/// An open descriptor, closed at the end.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return value_; }
  bool is_open() const { return value_ >= 0; }
  /// Closes now and throws if the system reports a failed write.
  void close(const std::string& path);

 private:
  int value_ = -1;
};

/// open(2), retried on EINTR; a closed descriptor and errno on failure.
Descriptor try_open(const std::string& path, int flags);

FileIdentity identity_of(int descriptor, const std::string& path);

void sync(int descriptor, const std::string& path);

bool is_direct_aligned(std::uint64_t offset, const void* data, std::size_t size_bytes);

/// Every read and write passes `gate`, which may be empty.
std::unique_ptr<InputFile> open_input(const std::string& path, IoMode mode, std::shared_ptr<IoGate> gate);
std::unique_ptr<OutputFile> open_output(const std::string& path, IoMode mode, std::shared_ptr<IoGate> gate);

}  // namespace moeweld::posix
