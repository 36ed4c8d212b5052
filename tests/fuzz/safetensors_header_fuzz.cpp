/// Any bytes either are the start of a safetensors file or are refused with Error; every accepted tensor lies within the file, in order,
/// without gaps, with the size its shape and dtype ask for; and the same tensors, written, are accepted again.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/formats/safetensors.h"

namespace {

using namespace moeweld;
using namespace moeweld::formats;

void require(bool holds) {
  if (!holds) std::abort();
}

std::uint64_t last_byte(const SafetensorsHeader& header) { return header.tensors.empty() ? header.data_begin : header.tensors.back().end; }

void check(const SafetensorsHeader& header, std::uint64_t file_size_bytes) {
  std::uint64_t position = header.data_begin;
  for (const SafetensorsTensor& tensor : header.tensors) {
    require(tensor.begin == position && tensor.end >= tensor.begin);
    unsigned __int128 expected = size_bytes(tensor.dtype);
    for (const auto dimension : tensor.shape) expected *= static_cast<std::uint64_t>(dimension);
    require(expected == tensor.end - tensor.begin);
    position = tensor.end;
  }
  require(position == file_size_bytes);
}

void check_written(const SafetensorsHeader& header) {
  std::vector<TensorLayout> layouts;
  for (const SafetensorsTensor& tensor : header.tensors) layouts.push_back({tensor.name, tensor.dtype, tensor.shape});
  const std::string bytes = serialize_safetensors_header(layouts);
  require(bytes.size() % kDataAlignment == 0);
  const std::uint64_t data_size_bytes = last_byte(header) - header.data_begin;
  if (data_size_bytes > (std::uint64_t{1} << 62)) return;
  const std::uint64_t file_size_bytes = bytes.size() + data_size_bytes;
  const auto first_8_bytes = std::as_bytes(std::span(bytes)).first(8);
  const std::uint64_t length = parse_header_length(first_8_bytes, file_size_bytes, "again.safetensors");
  const SafetensorsHeader again = parse_safetensors_header(std::string_view(bytes).substr(8, length), file_size_bytes, "again.safetensors");
  check(again, file_size_bytes);
  require(again.tensors.size() == header.tensors.size());
  for (std::size_t i = 0; i < again.tensors.size(); ++i) {
    require(again.tensors[i].name == header.tensors[i].name && again.tensors[i].dtype == header.tensors[i].dtype &&
            again.tensors[i].shape == header.tensors[i].shape);
  }
}

}  // namespace

/// 8 bytes: the size of the data behind the header; then the header's text.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
  if (size_bytes < 8) return 0;
  std::uint64_t data_size_bytes = 0;
  std::memcpy(&data_size_bytes, data, 8);
  const std::span first_8_bytes = std::as_bytes(std::span(data, 8));
  try {
    parse_header_length(first_8_bytes, size_bytes, "fuzz.safetensors");
  } catch (const Error& error) {
    require(!error.problems().empty());
  }
  const std::string_view json(reinterpret_cast<const char*>(data) + 8, size_bytes - 8);
  const std::uint64_t file_size_bytes = 8 + json.size() + data_size_bytes % (std::uint64_t{1} << 62);
  SafetensorsHeader header;
  try {
    header = parse_safetensors_header(json, file_size_bytes, "fuzz.safetensors");
  } catch (const Error& error) {
    require(!error.problems().empty() && error.problems().size() <= 20 && error.code() != ErrorCode::kInternal);
    return 0;
  }
  check(header, file_size_bytes);
  check_written(header);
  return 0;
}
