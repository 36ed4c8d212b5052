#pragma once
/// Tiles of elements from and to their dtypes. `num` is a multiple of kPadElements in all kernels.

#include <cstddef>

#include "moeweld/base/dtype.h"

namespace moeweld::merge {

/// A multiple of every vector length: kernels have no tails, callers pad (for_padded in tiles.h).
constexpr std::size_t kPadElements = 64;

/// What happens to NaN in encoding.
enum class NanPolicy : unsigned char {
  kCanonical,  ///< computed values: the positive quiet NaN, on every processor
  kPayload,    ///< conversions: sign and top payload bits stay, made quiet
};

void decode(DType dtype, const void* source, std::size_t num, float* target);
void decode(DType dtype, const void* source, std::size_t num, double* target);

/// float32 to BF16 or F16, float64 to F32 or F64; nearest even.
void encode(DType dtype, const float* source, std::size_t num, NanPolicy nan, void* target);
void encode(DType dtype, const double* source, std::size_t num, NanPolicy nan, void* target);

}  // namespace moeweld::merge
