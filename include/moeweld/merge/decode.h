#pragma once
/// Elements of a checkpoint as float32, for arithmetic outside of merge methods.

#include <cstddef>
#include <span>

#include "moeweld/base/dtype.h"

namespace moeweld::merge {

/// Decodes target.size() elements of an arithmetic dtype; F64 is rounded to nearest. `source` need not be aligned. Throws Error(kInternal)
/// for other dtypes.
void decode_elements(DType dtype, const std::byte* source, std::span<float> target);

}  // namespace moeweld::merge
