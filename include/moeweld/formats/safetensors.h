#pragma once
/// safetensors: an 8-byte little-endian header length, a JSON header, then the tensors without gaps.
/// Everything a reader relies on is checked here, once; one test per rejection.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moeweld/base/dtype.h"
#include "moeweld/base/shape.h"

namespace moeweld::formats {

/// As the reference implementation: larger headers are refused.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

struct SafetensorsTensor {
  std::string name;
  DType dtype{};
  Shape shape;
  std::uint64_t begin = 0;  ///< first byte, from the start of the *file*
  std::uint64_t end = 0;    ///< one past the last byte, from the start of the file
};

struct SafetensorsHeader {
  std::vector<std::pair<std::string, std::string>> metadata;  ///< __metadata__
  std::vector<SafetensorsTensor> tensors;                     ///< in file order: offsets ascend, without gaps
  std::uint64_t data_begin = 0;                               ///< 8 + header length
};

/// The header length that the first 8 bytes state; checked against the file's size and kMaxHeaderBytes.
/// Throws Error(kInvalidInput) with `path` and both numbers.
std::uint64_t parse_header_length(std::span<const std::byte> first_8_bytes, std::uint64_t file_size_bytes, const std::string& path);

/// header_json: exactly the header's bytes. Checks UTF-8, JSON object, depth, duplicate keys, known dtypes (an unknown or sub-byte one is
/// Error(kUnsupported) by name), shape products and byte sizes without overflow, offsets ordered, without overlap, hole or trailing bytes,
/// within the file, and equal to shape × dtype. All problems of one header are collected (at most 20). Every message names both numbers.
SafetensorsHeader parse_safetensors_header(std::string_view header_json, std::uint64_t file_size_bytes, const std::string& path);

constexpr std::uint64_t kDataAlignment = 4096;

/// What one output tensor needs to be laid out.
struct TensorLayout {
  std::string name;
  DType dtype{};
  Shape shape;
};

/// Builds the bytes before the data for tensors stored in this order: length, JSON with {"__metadata__":{"format":"pt"}} (and more, if
/// given), padded with spaces so that data starts at a multiple of `data_alignment`. Offsets follow from the order, without gaps.
std::string serialize_safetensors_header(std::span<const TensorLayout> tensors,
                                         std::span<const std::pair<std::string, std::string>> extra_metadata = {},
                                         std::uint64_t data_alignment = kDataAlignment);

}  // namespace moeweld::formats
