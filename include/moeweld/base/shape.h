#pragma once
/// Tensor shapes, row-major, with element counts that cannot overflow unnoticed.

#include <cstdint>
#include <string>
#include <vector>

namespace moeweld {

/// Extents, slowest first; empty for a scalar.
using Shape = std::vector<std::uint64_t>;

/// Product of all extents (1 for a scalar). Throws Error(kInvalidInput) on 64-bit overflow.
std::uint64_t num_elements(const Shape& shape);

/// Length of the last dimension: 1 for a scalar, n for a vector.
std::uint64_t row_length(const Shape& shape);

/// Product of all dimensions but the last: a vector is one row.
std::uint64_t num_rows(const Shape& shape);

/// "[4096, 11008]"
std::string to_string(const Shape& shape);

}  // namespace moeweld
