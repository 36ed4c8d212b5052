#pragma once
/// Tables as groups of datasets of one dimension.

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <vector>

#include "hdf5/library.h"

namespace moeweld::hdf5 {

/// Writes columns of one group.
class ColumnWriter {
 public:
  ColumnWriter(hid_t group, const std::string& path) : group_(group), path_(path) {}
  void write(const char* name, const std::vector<double>& values) {
    write(name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, values.size(), values.data());
  }
  void write(const char* name, const std::vector<std::uint64_t>& values) {
    write(name, H5T_STD_U64LE, H5T_NATIVE_UINT64, values.size(), values.data());
  }
  void write(const char* name, const std::vector<std::int32_t>& values) {
    write(name, H5T_STD_I32LE, H5T_NATIVE_INT32, values.size(), values.data());
  }
  /// UTF-8 of fixed length, padded with zeros.
  void write(const char* name, const std::vector<std::string>& values);

 private:
  void write(const char* name, hid_t stored, hid_t memory, std::size_t size, const void* data);
  hid_t group_;
  const std::string& path_;
};

/// Reads columns of one group of a file that nobody vouches for: datasets of the group itself, of exactly the type and length that are
/// asked for, whose data is in the file. All functions throw Error(kInvalidInput) that names the dataset.
class ColumnReader {
 public:
  /// `prefix` of names in messages: "tensors/".
  ColumnReader(hid_t group, std::string prefix, const std::string& path) : group_(group), prefix_(std::move(prefix)), path_(path) {}
  /// Of any column.
  std::size_t length(const char* name) const;
  std::vector<double> doubles(const char* name, std::size_t length) const;
  std::vector<std::uint64_t> counts(const char* name, std::size_t length) const;
  std::vector<std::int32_t> integers(const char* name, std::size_t length) const;
  std::vector<std::string> texts(const char* name, std::size_t length) const;
  [[noreturn]] void refuse(const std::string& name, const std::string& what) const;

 private:
  struct Column {
    Handle dataset;
    Handle type;
    std::size_t length = 0;
  };
  Column open(const char* name) const;
  Column open(const char* name, std::size_t length) const;
  template <typename T>
  std::vector<T> numbers(const char* name, std::size_t length, hid_t stored, hid_t memory, const char* what) const;

  hid_t group_;
  const std::string prefix_;
  const std::string& path_;
};

/// A group that is itself there, not a link to one elsewhere.
Handle open_group(hid_t parent, const char* name, const std::string& path);

}  // namespace moeweld::hdf5
