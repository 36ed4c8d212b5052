#pragma once
/// A safetensors file spelled out: what the format says, without the code under test.

#include <cstdint>
#include <string>

namespace moeweld::formats {

inline std::string with_length(const std::string& header) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> (8 * i) & 0xff);
  return text + header;
}

inline std::string file_with(const std::string& header, std::size_t data_size_bytes) {
  return with_length(header) + std::string(data_size_bytes, '\1');
}

/// {"name":{"dtype":"F32","shape":[count],"data_offsets":[begin,begin+4*count]}} without the outer braces.
inline std::string f32_entry(const std::string& name, std::uint64_t count, std::uint64_t begin = 0) {
  return "\"" + name + R"(":{"dtype":"F32","shape":[)" + std::to_string(count) + R"(],"data_offsets":[)" + std::to_string(begin) + "," +
         std::to_string(begin + 4 * count) + "]}";
}

}  // namespace moeweld::formats
