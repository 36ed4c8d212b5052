#include "hdf5/columns.h"

#include <algorithm>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::hdf5 {

namespace {

constexpr std::size_t kLongestString = 4096;
constexpr std::size_t kMostRows = std::size_t{1} << 26;

bool is_itself_there(hid_t parent, const char* name) {
  H5L_info_t info;
  return H5Lexists(parent, name, H5P_DEFAULT) > 0 && H5Lget_info(parent, name, &info, H5P_DEFAULT) >= 0 && info.type == H5L_TYPE_HARD;
}

Handle text_type(std::size_t size) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  const bool made =
      H5Tset_size(type.get(), size) >= 0 && H5Tset_cset(type.get(), H5T_CSET_UTF8) >= 0 && H5Tset_strpad(type.get(), H5T_STR_NULLPAD) >= 0;
  if (!made) throw Error(ErrorCode::kInternal, "the HDF5 library cannot make a type for texts");
  return type;
}

}  // namespace

void ColumnWriter::write(const char* name, const std::vector<std::string>& values) {
  std::size_t size = 1;
  for (const std::string& value : values) size = std::max(size, value.size());
  std::string cells;
  cells.reserve(size * values.size());
  for (const std::string& value : values) {
    cells += value;
    cells.append(size - value.size(), '\0');
  }
  const Handle type = text_type(size);
  write(name, type.get(), type.get(), values.size(), cells.data());
}

void ColumnWriter::write(const char* name, hid_t stored, hid_t memory, std::size_t size, const void* data) {
  const hsize_t length = size;
  const Handle space = checked(H5Screate_simple(1, &length, nullptr), H5Sclose, "H5Screate_simple", path_);
  const Handle creation = checked(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate", path_);
  check(H5Pset_layout(creation.get(), H5D_CONTIGUOUS), "H5Pset_layout", path_);
  check(H5Pset_obj_track_times(creation.get(), false), "H5Pset_obj_track_times", path_);
  const Handle dataset =
      checked(H5Dcreate2(group_, name, stored, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT), H5Dclose, "H5Dcreate", path_);
  if (size != 0) check(H5Dwrite(dataset.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), "H5Dwrite", path_);
}

void ColumnReader::refuse(const std::string& name, const std::string& what) const {
  throw Error(ErrorCode::kInvalidInput, "its dataset '" + prefix_ + name + "' " + what, path_);
}

ColumnReader::Column ColumnReader::open(const char* name) const {
  if (!is_itself_there(group_, name)) refuse(name, "is missing, or is a link to something else");
  Column column;
  column.dataset = Handle(H5Dopen2(group_, name, H5P_DEFAULT), H5Dclose);
  if (!column.dataset.is_open()) refuse(name, "is no dataset, or is damaged");
  column.type = Handle(H5Dget_type(column.dataset.get()), H5Tclose);
  const Handle space(H5Dget_space(column.dataset.get()), H5Sclose);
  const Handle creation(H5Dget_create_plist(column.dataset.get()), H5Pclose);
  if (!column.type.is_open() || !space.is_open() || !creation.is_open()) refuse(name, "cannot be read: the file is damaged");
  hsize_t length = 0;
  if (H5Sget_simple_extent_ndims(space.get()) != 1 || H5Sget_simple_extent_dims(space.get(), &length, nullptr) != 1)
    refuse(name, "does not have one dimension");
  if (length > kMostRows) refuse(name, "has " + std::to_string(length) + " rows; at most " + std::to_string(kMostRows) + " are read");
  // So that a few bytes do not stand for gigabytes, and no other file is read.
  if (H5Pget_layout(creation.get()) != H5D_CONTIGUOUS || H5Pget_external_count(creation.get()) != 0 ||
      H5Dget_storage_size(column.dataset.get()) != length * H5Tget_size(column.type.get()))
    refuse(name, "is not stored in one piece in the file");
  column.length = length;
  return column;
}

ColumnReader::Column ColumnReader::open(const char* name, std::size_t length) const {
  Column column = open(name);
  if (column.length != length)
    refuse(name, "has " + std::to_string(column.length) + " rows, but there are " + std::to_string(length) + " of its table");
  return column;
}

std::size_t ColumnReader::length(const char* name) const { return open(name).length; }

template <typename T>
std::vector<T> ColumnReader::numbers(const char* name, std::size_t length, hid_t stored, hid_t memory, const char* what) const {
  const Column column = open(name, length);
  if (H5Tequal(column.type.get(), stored) <= 0) refuse(name, std::string("does not hold ") + what);
  std::vector<T> values(length);
  if (length != 0 && H5Dread(column.dataset.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
    refuse(name, "cannot be read: the file is damaged or was cut");
  return values;
}

std::vector<double> ColumnReader::doubles(const char* name, std::size_t length) const {
  return numbers<double>(name, length, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, "numbers of float64");
}
std::vector<std::uint64_t> ColumnReader::counts(const char* name, std::size_t length) const {
  return numbers<std::uint64_t>(name, length, H5T_STD_U64LE, H5T_NATIVE_UINT64, "unsigned integers of 64 bits");
}
std::vector<std::int32_t> ColumnReader::integers(const char* name, std::size_t length) const {
  return numbers<std::int32_t>(name, length, H5T_STD_I32LE, H5T_NATIVE_INT32, "integers of 32 bits");
}

std::vector<std::string> ColumnReader::texts(const char* name, std::size_t length) const {
  const Column column = open(name, length);
  const std::size_t size = H5Tget_size(column.type.get());
  if (H5Tget_class(column.type.get()) != H5T_STRING || H5Tis_variable_str(column.type.get()) != 0 || size == 0 || size > kLongestString)
    refuse(name, "does not hold texts of one length, at most " + std::to_string(kLongestString) + " bytes each");
  std::string cells(size * length, '\0');
  if (length != 0 && H5Dread(column.dataset.get(), column.type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, cells.data()) < 0)
    refuse(name, "cannot be read: the file is damaged or was cut");
  std::vector<std::string> values;
  values.reserve(length);
  for (std::size_t row = 0; row < length; ++row) {
    std::string value = cells.substr(row * size, size);
    value.resize(value.find_last_not_of('\0') + 1);
    if (!is_utf8(value) || value.find('\0') != std::string::npos) refuse(name, "is not UTF-8 in row " + std::to_string(row));
    values.push_back(std::move(value));
  }
  return values;
}

Handle open_group(hid_t parent, const char* name, const std::string& path) {
  Handle group;
  if (is_itself_there(parent, name)) group = Handle(H5Gopen2(parent, name, H5P_DEFAULT), H5Gclose);
  if (!group.is_open())
    throw Error(ErrorCode::kInvalidInput, "its group '" + std::string(name) + "' is missing, or is a link to something else", path);
  return group;
}

}  // namespace moeweld::hdf5
