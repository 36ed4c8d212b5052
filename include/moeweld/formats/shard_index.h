#pragma once
/// model.safetensors.index.json: which file holds which tensor.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace moeweld::formats {

struct ShardIndex {
  std::map<std::string, std::string> weight_map;  ///< tensor → file name, a plain name within the directory
};

/// Throws Error(kInvalidInput): not an object, no weight_map, a file name that is empty, absolute, or holds '/', '\\' or "..", wrong types.
ShardIndex parse_shard_index(std::string_view json, const std::string& path);

/// Text with "metadata": {"total_size": bytes of all tensors} and the weight map sorted by tensor name.
std::string serialize_shard_index(const ShardIndex& index, std::uint64_t total_size_bytes);

}  // namespace moeweld::formats
