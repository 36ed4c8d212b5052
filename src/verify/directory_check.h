#pragma once
/// Everything about an output directory that can be checked without reading tensor data.

#include <cstdint>
#include <string>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/exec/manifest.h"
#include "moeweld/storage/storage.h"

namespace moeweld::verify {

struct DirectoryCheck {
  std::vector<exec::ManifestFile> files;  ///< those that are there with the size the manifest names: worth a digest
  std::vector<std::string> outputs;       ///< directories of all models that the run wrote, as the manifest names them
  std::uint64_t num_tensors = 0;
  ProblemList problems;
};

/// Files present and their sizes, safetensors files that nobody named, headers, and the index against the headers. Reads small files and
/// headers only. Throws Error where there is no manifest to check against.
DirectoryCheck check_directory(Storage& storage, const std::string& directory);

}  // namespace moeweld::verify
