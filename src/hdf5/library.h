#pragma once
/// The HDF5 library's handles, errors and types. Not thread-safe, as the library is not.

#include <hdf5.h>

#include <string>
#include <utility>

#include "moeweld/base/dtype.h"

namespace moeweld::hdf5 {

/// A handle that is given back by the function that belongs to its kind.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close closer) : id_(id), close_(closer) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      reset();
      id_ = std::exchange(other.id_, -1);
      close_ = other.close_;
    }
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  hid_t get() const { return id_; }
  bool is_open() const { return id_ >= 0; }
  /// Closes now; whether that went well.
  bool close() { return id_ < 0 || close_(std::exchange(id_, -1)) >= 0; }

 private:
  void reset() {
    if (id_ >= 0) close_(std::exchange(id_, -1));
  }
  hid_t id_ = -1;
  Close close_ = nullptr;
};

/// Keeps the library from printing its error stack; call before anything else of it.
void silence();

/// Throws Error(kIo, or `code`) with the library's own words about the call that failed last.
[[noreturn]] void fail(const std::string& what, const std::string& path);

/// `id` as a Handle; throws where the call that gave it has failed.
Handle checked(hid_t id, Handle::Close close, const char* what, const std::string& path);
void check(herr_t status, const char* what, const std::string& path);

/// How files are opened: the format of HDF5 1.8 and later, no locks (flock is missing on some parallel file systems; OUT.partial has one
/// writer).
Handle file_access(const std::string& path);

/// The type that elements are stored as: IEEE floats for F64, F32 and F16; BF16 a float of 16 bits with 8 bits of exponent and 7 of
/// mantissa; little-endian integers; unsigned bytes for FP8 codes and booleans, which the attribute "dtype" tells apart.
Handle stored_type(DType dtype);

}  // namespace moeweld::hdf5
