#include "moeweld/merge/decode.h"

#include <array>
#include <cstring>

#include "merge/kernels/convert.h"

namespace moeweld::merge {

void decode_elements(DType dtype, const std::byte* source, std::span<float> target) {
  const std::size_t whole = target.size() / kPadElements * kPadElements;
  if (whole != 0) decode(dtype, source, whole, target.data());
  const std::size_t rest = target.size() - whole;
  if (rest == 0) return;
  alignas(64) std::array<std::byte, kPadElements * sizeof(double)> padded{};
  alignas(64) std::array<float, kPadElements> decoded{};
  std::memcpy(padded.data(), source + whole * size_bytes(dtype), rest * size_bytes(dtype));
  decode(dtype, padded.data(), kPadElements, decoded.data());
  std::memcpy(target.data() + whole, decoded.data(), rest * sizeof(float));
}

}  // namespace moeweld::merge
