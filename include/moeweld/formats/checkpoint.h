#pragma once
/// A model directory: headers of all its files, config.json and the names of its other files. No tensor data.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "moeweld/formats/json.h"
#include "moeweld/formats/safetensors.h"
#include "moeweld/storage/storage.h"

namespace moeweld::formats {

struct CheckpointFile {
  std::string path;  ///< directory + "/" + name, symlinks not resolved
  FileIdentity identity;
};

/// Where a tensor's bytes are.
struct CheckpointTensor {
  std::string name;
  DType dtype{};
  Shape shape;
  std::uint32_t file = 0;   ///< index into Checkpoint::files
  std::uint64_t begin = 0;  ///< from the start of the file
  std::uint64_t size_bytes = 0;
};

struct Checkpoint {
  std::string directory;
  std::vector<CheckpointFile> files;      ///< safetensors files that hold tensors, in name order
  std::vector<CheckpointTensor> tensors;  ///< in (file, offset) order
  Json config;                            ///< config.json
  std::vector<std::string> other_files;   ///< every other plain file's name, sorted (config.json and the index left out)
  std::vector<std::string> notes;         ///< what is odd but harmless: files that the index does not name, …

  const CheckpointTensor* find(std::string_view name) const;
  /// Whether `name` is one of other_files.
  bool has_file(const std::string& name) const;
  /// architectures[0] of config.json, empty if there is none.
  std::string architecture() const;
  std::uint64_t total_bytes() const;

  std::unordered_map<std::string, std::uint32_t> by_name;  ///< tensor name → index into tensors
};

/// Reads where the tensors of an HDF5 file are (of which formats knows nothing itself); begin and end count from the start of the file.
using Hdf5Reader = std::vector<SafetensorsTensor> (*)(const std::string& path, std::uint64_t file_size_bytes);
/// What read_checkpoint uses for *.h5 files; without one they are refused. Set it once, before any thread reads a checkpoint.
void set_hdf5_reader(Hdf5Reader reader);
/// Null where none is set.
Hdf5Reader hdf5_reader();

/// Reads config.json, the index if there is one (model.safetensors.index.json), else model.safetensors, else every *.safetensors file, else
/// every *.h5 file (none may repeat a tensor), and all headers; 8 bytes and the header of each file, nothing else. Hub caches are
/// directories of symlinks: followed. Index and headers must agree: a missing file, an absent tensor, a tensor in another file than the
/// index says, or in two, are errors, all reported. Refused by name (kUnsupported) with advice: quantised formats that config.json's
/// quantization_config names (gptq, awq, compressed-tensors, bitsandbytes, mxfp4, but not fp8); directories with pickle files only (*.bin,
/// *.pt, *.pth), GGUF only. Throws Error.
Checkpoint read_checkpoint(Storage& storage, const std::string& directory);

}  // namespace moeweld::formats
