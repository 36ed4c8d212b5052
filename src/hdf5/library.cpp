#include "hdf5/library.h"

#include "moeweld/base/error.h"

namespace moeweld::hdf5 {

namespace {

/// The innermost entry says what really went wrong.
herr_t take_words(unsigned position, const H5E_error2_t* error, void* words) {
  if (position == 0 && error->desc != nullptr) *static_cast<std::string*>(words) = error->desc;
  return 0;
}

struct FloatFields {
  std::size_t bytes;
  std::size_t exponent_bits;
  std::size_t mantissa_bits;
  std::size_t bias;
};

Handle half_type(FloatFields fields) {
  Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  const std::size_t sign = fields.exponent_bits + fields.mantissa_bits;
  // Fields first: they must fit the precision at every step.
  const bool made = H5Tset_fields(type.get(), sign, fields.mantissa_bits, fields.exponent_bits, 0, fields.mantissa_bits) >= 0 &&
                    H5Tset_precision(type.get(), sign + 1) >= 0 && H5Tset_size(type.get(), fields.bytes) >= 0 &&
                    H5Tset_ebias(type.get(), fields.bias) >= 0;
  if (!made) throw Error(ErrorCode::kInternal, "the HDF5 library cannot make a 16-bit float type");
  return type;
}

}  // namespace

void silence() { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

void fail(const std::string& what, const std::string& path) {
  std::string words;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_words, &words);
  throw Error(ErrorCode::kIo, "HDF5: " + what + " failed" + (words.empty() ? "" : ": " + words), path);
}

Handle checked(hid_t id, Handle::Close close, const char* what, const std::string& path) {
  if (id < 0) fail(what, path);
  return {id, close};
}

void check(herr_t status, const char* what, const std::string& path) {
  if (status < 0) fail(what, path);
}

Handle file_access(const std::string& path) {
  Handle access = checked(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "H5Pcreate", path);
  check(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_V110), "H5Pset_libver_bounds", path);
#if H5_VERSION_GE(1, 10, 7)
  check(H5Pset_file_locking(access.get(), false, true), "H5Pset_file_locking", path);
#endif
  return access;
}

Handle stored_type(DType dtype) {
  const auto copy = [](hid_t type) { return Handle(H5Tcopy(type), H5Tclose); };
  switch (dtype) {
    case DType::kF64:
      return copy(H5T_IEEE_F64LE);
    case DType::kF32:
      return copy(H5T_IEEE_F32LE);
    case DType::kF16:
      return half_type({2, 5, 10, 15});
    case DType::kBF16:
      return half_type({2, 8, 7, 127});
    case DType::kI64:
      return copy(H5T_STD_I64LE);
    case DType::kI32:
      return copy(H5T_STD_I32LE);
    case DType::kI16:
      return copy(H5T_STD_I16LE);
    case DType::kI8:
      return copy(H5T_STD_I8LE);
    case DType::kU64:
      return copy(H5T_STD_U64LE);
    case DType::kU32:
      return copy(H5T_STD_U32LE);
    case DType::kU16:
      return copy(H5T_STD_U16LE);
    case DType::kU8:
    case DType::kBool:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
      return copy(H5T_STD_U8LE);
  }
  throw Error(ErrorCode::kInternal, "a dtype has no HDF5 type");
}

}  // namespace moeweld::hdf5
