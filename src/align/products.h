#pragma once
/// Products of two matrices' rows: align's one costly loop.

#include <cstddef>

namespace moeweld::align {

/// Numbers that are multiplied and summed in float32 before they are added to what is there.
constexpr std::size_t kDepth = 256;

/// c[i * stride + j] += Σ_k a[i * kDepth + k] · b[j * kDepth + k] for i < rows, j < columns, k < kDepth in ascending order, multiplied,
/// then added, in float32. An element does not depend on where in c it stands, on the vector width or on the number of threads, so equal
/// rows have equal products.
void add_products(const float* a, std::size_t rows, const float* b, std::size_t columns, float* c, std::size_t stride, int threads);

/// 1 / value, and 0 where there is nothing to divide by.
inline double reciprocal(double value) { return value > 0 ? 1.0 / value : 0.0; }

}  // namespace moeweld::align
