#pragma once
/// A run of elements of a tensor as the boxes (hyperslabs) that it consists of.

#include <cstdint>
#include <functional>
#include <span>

#include "moeweld/base/shape.h"

namespace moeweld::hdf5 {

/// Calls box(start, extent, num_elements) for boxes that together are the row-major elements [first, first + count), in their order; each
/// is itself one run of elements. At most 2·rank - 1 of them. `shape` has a dimension at least.
void for_boxes(const Shape& shape, std::uint64_t first, std::uint64_t count,
               const std::function<void(std::span<const std::uint64_t>, std::span<const std::uint64_t>, std::uint64_t)>& box);

}  // namespace moeweld::hdf5
