#include <algorithm>
#include <array>

#include "hdf5/library.h"
#include "moeweld/base/checked.h"
#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "moeweld/hdf5/hdf5_file.h"

namespace moeweld::hdf5 {

namespace {

constexpr std::array kByType = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32,
                                DType::kI16, DType::kI8,  DType::kU64, DType::kU32,  DType::kU16, DType::kU8};

herr_t add_name(hid_t, const char* name, const H5L_info_t* info, void* names) {
  static_cast<std::vector<std::pair<std::string, H5L_type_t>>*>(names)->emplace_back(name, info->type);
  return 0;
}

/// One dataset of a file that nobody vouches for.
class DatasetReader {
 public:
  DatasetReader(hid_t file, std::string name, std::uint64_t file_size_bytes, const std::string& path)
      : name_(std::move(name)), file_size_bytes_(file_size_bytes), path_(path) {
    H5O_info_t info;
    if (H5Oget_info_by_name2(file, name_.c_str(), &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0) damaged();
    if (info.type != H5O_TYPE_DATASET) unsupported("is no dataset; a checkpoint's tensors are datasets of the root group, without groups");
    dataset_ = Handle(H5Dopen2(file, name_.c_str(), H5P_DEFAULT), H5Dclose);
    if (!dataset_.is_open()) damaged();
  }

  formats::SafetensorsTensor read() {
    formats::SafetensorsTensor tensor;
    tensor.name = name_;
    tensor.shape = shape();
    tensor.dtype = dtype();
    const auto bytes = checked_multiply<std::uint64_t>(num_elements(tensor.shape), size_bytes(tensor.dtype));
    if (!bytes) unsupported("has more than 2^64 bytes");
    check_layout();
    if (*bytes == 0) return tensor;
    const haddr_t offset = H5Dget_offset(dataset_.get());
    if (offset == HADDR_UNDEF) {
      throw Error(ErrorCode::kInvalidInput, "has a shape but no data in the file: it was never written", path_, name_);
    }
    if (offset > file_size_bytes_ || *bytes > file_size_bytes_ - offset) {
      throw Error(ErrorCode::kInvalidInput,
                  "has " + std::to_string(*bytes) + " bytes from byte " + std::to_string(offset) + " on, but the file has " +
                      std::to_string(file_size_bytes_) + ". The file is damaged or was cut; compare its size with the source",
                  path_, name_);
    }
    tensor.begin = offset;
    tensor.end = offset + *bytes;
    return tensor;
  }

 private:
  [[noreturn]] void damaged() const {
    throw Error(ErrorCode::kInvalidInput, "cannot be read: the HDF5 file is damaged or was cut", path_, name_);
  }
  [[noreturn]] void unsupported(const std::string& what) const { throw Error(ErrorCode::kUnsupported, what, path_, name_); }

  Shape shape() const {
    const Handle space(H5Dget_space(dataset_.get()), H5Sclose);
    if (!space.is_open()) damaged();
    const int rank = H5Sget_simple_extent_ndims(space.get());
    if (rank < 0 || H5Sget_simple_extent_type(space.get()) == H5S_NULL) unsupported("has no shape");
    std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
    if (rank > 0 && H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr) < 0) damaged();
    return {extents.begin(), extents.end()};
  }

  DType dtype() const {
    const Handle type(H5Dget_type(dataset_.get()), H5Tclose);
    if (!type.is_open()) damaged();
    if (const std::optional<DType> named = named_dtype()) {
      if (H5Tequal(type.get(), stored_type(*named).get()) > 0) return *named;
      throw Error(ErrorCode::kInvalidInput,
                  "has the attribute dtype '" + std::string(moeweld::name(*named)) + "', but data of another type", path_, name_);
    }
    for (const DType candidate : kByType) {
      if (H5Tequal(type.get(), stored_type(candidate).get()) > 0) return candidate;
    }
    unsupported(
        "has elements of a type that is not read: there are little-endian floats of 64, 32 and 16 bits, bfloat16 as docs/hdf5.md describes "
        "it, and little-endian integers");
  }

  /// What the attribute "dtype" says, where there is one.
  std::optional<DType> named_dtype() const {
    if (H5Aexists(dataset_.get(), "dtype") <= 0) return std::nullopt;
    const Handle attribute(H5Aopen(dataset_.get(), "dtype", H5P_DEFAULT), H5Aclose);
    const Handle type(H5Aget_type(attribute.get()), H5Tclose);
    const Handle space(H5Aget_space(attribute.get()), H5Sclose);
    const std::size_t size = type.is_open() ? H5Tget_size(type.get()) : 0;
    // Others use the name for things of their own.
    if (!attribute.is_open() || H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) != 0 || size == 0 || size > 64 ||
        H5Sget_simple_extent_npoints(space.get()) != 1)
      return std::nullopt;
    std::string text(size, '\0');
    if (H5Aread(attribute.get(), type.get(), text.data()) < 0) damaged();
    text.resize(text.find_last_not_of('\0') + 1);
    return dtype_from_safetensors(text);
  }

  void check_layout() const {
    const Handle creation(H5Dget_create_plist(dataset_.get()), H5Pclose);
    if (!creation.is_open()) damaged();
    if (H5Pget_layout(creation.get()) != H5D_CONTIGUOUS) {
      unsupported("is stored in chunks, compressed or inside its header; 'h5repack -l CONTI -f NONE' makes a file that can be read");
    }
    if (H5Pget_external_count(creation.get()) != 0) unsupported("is stored in other files, which are not followed");
  }

  const std::string name_;
  const std::uint64_t file_size_bytes_;
  const std::string& path_;
  Handle dataset_;
};

void check_overlaps(std::vector<formats::SafetensorsTensor>& tensors, const std::string& path, ProblemList& problems) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  for (std::size_t i = 1; i < tensors.size(); ++i) {
    if (tensors[i].begin >= tensors[i - 1].end || tensors[i].begin == tensors[i].end) continue;
    problems.add(Problem{ErrorCode::kInvalidInput,
                         "begins at byte " + std::to_string(tensors[i].begin) + ", within '" + printable(tensors[i - 1].name) +
                             "', which ends at " + std::to_string(tensors[i - 1].end),
                         path, 0, tensors[i].name});
    return;
  }
}

}  // namespace

std::vector<formats::SafetensorsTensor> read_hdf5_header(const std::string& path, std::uint64_t file_size_bytes) {
  silence();
  if (H5Fis_hdf5(path.c_str()) <= 0) throw Error(ErrorCode::kInvalidInput, "is not an HDF5 file, or its beginning is damaged", path);
  const Handle access = file_access(path);
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!file.is_open()) throw Error(ErrorCode::kInvalidInput, "cannot be opened as HDF5: it is damaged or was cut", path);
  std::vector<std::pair<std::string, H5L_type_t>> names;
  hsize_t next = 0;
  if (H5Literate(file.get(), H5_INDEX_NAME, H5_ITER_NATIVE, &next, add_name, &names) < 0)
    throw Error(ErrorCode::kInvalidInput, "has a root group that cannot be read: the file is damaged", path);
  std::vector<formats::SafetensorsTensor> tensors;
  ProblemList problems;
  constexpr std::size_t kMaxProblems = 20;
  for (const auto& [name, type] : names) {
    problems.attempt([&] {
      if (type != H5L_TYPE_HARD)
        throw Error(ErrorCode::kUnsupported, "is a link to something else, and links are not followed", path, name);
      tensors.push_back(DatasetReader(file.get(), name, file_size_bytes, path).read());
    });
    if (problems.problems().size() >= kMaxProblems) break;
  }
  check_overlaps(tensors, path, problems);
  problems.throw_if_any();
  return tensors;
}

}  // namespace moeweld::hdf5
