#include "hdf5/attributes.h"

#include <algorithm>

#include "hdf5/library.h"
#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::hdf5 {

namespace {

/// An attribute is at most so long; longer texts go on in further ones.
constexpr std::size_t kAttributeBytes = 32 * 1024;

/// The one value of an attribute: its type and handle.
struct OpenAttribute {
  Handle attribute;
  Handle type;
};

[[noreturn]] void refuse(const std::string& name, const std::string& what, const std::string& path) {
  throw Error(ErrorCode::kInvalidInput, "its attribute '" + name + "' " + what, path);
}

OpenAttribute open_attribute(hid_t object, const std::string& name, const std::string& path) {
  if (H5Aexists(object, name.c_str()) <= 0) refuse(name, "is missing", path);
  OpenAttribute result;
  result.attribute = Handle(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose);
  if (!result.attribute.is_open()) refuse(name, "cannot be read: the file is damaged", path);
  result.type = Handle(H5Aget_type(result.attribute.get()), H5Tclose);
  const Handle space(H5Aget_space(result.attribute.get()), H5Sclose);
  if (!result.type.is_open() || !space.is_open() || H5Sget_simple_extent_npoints(space.get()) != 1) refuse(name, "is not one value", path);
  return result;
}

std::string continuation(const std::string& name, std::size_t number) { return number == 0 ? name : name + "." + std::to_string(number); }

}  // namespace

void write_text(hid_t object, const std::string& name, std::string_view text, const std::string& path) {
  const Handle type = checked(H5Tcopy(H5T_C_S1), H5Tclose, "H5Tcopy", path);
  check(H5Tset_size(type.get(), std::max<std::size_t>(1, text.size())), "H5Tset_size", path);
  check(H5Tset_cset(type.get(), H5T_CSET_UTF8), "H5Tset_cset", path);
  check(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), "H5Tset_strpad", path);
  const Handle space = checked(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate", path);
  const Handle attribute =
      checked(H5Acreate2(object, name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose, "H5Acreate", path);
  check(H5Awrite(attribute.get(), type.get(), text.empty() ? "" : text.data()), "H5Awrite", path);
}

void write_long_text(hid_t object, const std::string& name, std::string_view text, const std::string& path) {
  if (text.size() > kLongestText) return;
  std::size_t number = 0;
  do {
    // Not within a character: continuation bytes begin with the bits 10.
    std::size_t size = std::min(kAttributeBytes, text.size());
    while (size < text.size() && size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0U) == 0x80U) --size;
    write_text(object, continuation(name, number), text.substr(0, size), path);
    text.remove_prefix(size);
    ++number;
  } while (!text.empty());
}

void write_number(hid_t object, const std::string& name, std::int64_t number, const std::string& path) {
  const Handle space = checked(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate", path);
  const Handle attribute =
      checked(H5Acreate2(object, name.c_str(), H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose, "H5Acreate", path);
  check(H5Awrite(attribute.get(), H5T_NATIVE_INT64, &number), "H5Awrite", path);
}

std::string read_text(hid_t object, const std::string& name, const std::string& path) {
  const OpenAttribute open = open_attribute(object, name, path);
  const std::size_t size = H5Tget_size(open.type.get());
  if (H5Tget_class(open.type.get()) != H5T_STRING || H5Tis_variable_str(open.type.get()) != 0 || size == 0 || size > kLongestText)
    refuse(name, "is not a text of fixed length", path);
  std::string text(size, '\0');
  if (H5Aread(open.attribute.get(), open.type.get(), text.data()) < 0) refuse(name, "cannot be read: the file is damaged", path);
  text.resize(text.find_last_not_of('\0') + 1);
  if (!is_utf8(text)) refuse(name, "is not UTF-8", path);
  return text;
}

std::string read_long_text(hid_t object, const std::string& name, const std::string& path) {
  std::string text;
  for (std::size_t number = 0; H5Aexists(object, continuation(name, number).c_str()) > 0; ++number) {
    text += read_text(object, continuation(name, number), path);
    if (text.size() > kLongestText) refuse(name, "is longer than any that moeweld writes", path);
  }
  return text;
}

std::int64_t read_number(hid_t object, const std::string& name, const std::string& path) {
  const OpenAttribute open = open_attribute(object, name, path);
  std::int64_t number = 0;
  if (H5Tequal(open.type.get(), H5T_STD_I64LE) <= 0) refuse(name, "is not an integer of 64 bits", path);
  if (H5Aread(open.attribute.get(), H5T_NATIVE_INT64, &number) < 0) refuse(name, "cannot be read: the file is damaged", path);
  return number;
}

}  // namespace moeweld::hdf5
