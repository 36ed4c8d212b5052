#include "hdf5/create_file.h"

#include "hdf5/attributes.h"
#include "hdf5/library.h"
#include "moeweld/base/error.h"

namespace moeweld::hdf5 {

namespace {

void write_provenance(hid_t root, const plan::MergePlan& plan, const Provenance& provenance, const std::string& path) {
  write_text(root, "format", kFormatName, path);
  write_text(root, "moeweld_version", provenance.version, path);
  write_text(root, "title", plan.title, path);
  write_text(root, "seed", std::to_string(plan.seed), path);
  write_long_text(root, "merge_config", plan.config_text, path);
  std::string models;
  for (const plan::PlannedModel& model : plan.models) models += model.reference + "\n";
  write_long_text(root, "models", models, path);
  for (const plan::AuxiliaryFile& file : plan.auxiliary_files) {
    if (file.name == "config.json" && file.action == plan::AuxiliaryFile::Action::kWrite)
      write_long_text(root, "config_json", file.content, path);
  }
}

Handle dataset_space(const Shape& shape, const std::string& path) {
  if (shape.empty()) return checked(H5Screate(H5S_SCALAR), H5Sclose, "H5Screate", path);
  const std::vector<hsize_t> extents(shape.begin(), shape.end());
  return checked(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr), H5Sclose, "H5Screate_simple", path);
}

}  // namespace

void create_file(const std::string& path, const plan::MergePlan& plan, std::uint32_t file, const Provenance& provenance) {
  const plan::PlannedOutputFile& planned = plan.output_files[file];
  const Handle access = file_access(path);
  // All metadata in one block at the front, and the data behind it without gaps.
  check(H5Pset_meta_block_size(access.get(), planned.own_metadata_bytes), "H5Pset_meta_block_size", path);
  check(H5Pset_small_data_block_size(access.get(), 0), "H5Pset_small_data_block_size", path);
  const Handle creation = checked(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "H5Pcreate", path);
  check(H5Pset_obj_track_times(creation.get(), false), "H5Pset_obj_track_times", path);
  const Handle dataset_creation = checked(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate", path);
  check(H5Pset_layout(dataset_creation.get(), H5D_CONTIGUOUS), "H5Pset_layout", path);
  check(H5Pset_alloc_time(dataset_creation.get(), H5D_ALLOC_TIME_EARLY), "H5Pset_alloc_time", path);
  check(H5Pset_fill_time(dataset_creation.get(), H5D_FILL_TIME_NEVER), "H5Pset_fill_time", path);
  check(H5Pset_obj_track_times(dataset_creation.get(), false), "H5Pset_obj_track_times", path);

  Handle created = checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), H5Fclose, "H5Fcreate", path);
  write_provenance(created.get(), plan, provenance, path);
  for (const plan::PlannedTensor& tensor : plan.tensors) {
    if (tensor.file != file) continue;
    if (tensor.name.find('/') != std::string::npos || tensor.name == ".") {
      throw Error(ErrorCode::kUnsupported, "cannot be the name of an HDF5 dataset; write safetensors instead", path, tensor.name);
    }
    const Handle space = dataset_space(tensor.shape, path);
    const Handle type = stored_type(tensor.dtype);
    const Handle dataset =
        checked(H5Dcreate2(created.get(), tensor.name.c_str(), type.get(), space.get(), H5P_DEFAULT, dataset_creation.get(), H5P_DEFAULT),
                H5Dclose, "H5Dcreate", path);
    write_text(dataset.get(), "dtype", name(tensor.dtype), path);
    if (tensor.size_bytes == 0) continue;
    const haddr_t offset = H5Dget_offset(dataset.get());
    if (offset != tensor.begin) {
      throw Error(ErrorCode::kInternal,
                  "the HDF5 library puts the data at byte " + std::to_string(offset) + ", the plan at " + std::to_string(tensor.begin),
                  path, tensor.name);
    }
  }
  if (!created.close()) fail("H5Fclose", path);
}

}  // namespace moeweld::hdf5
