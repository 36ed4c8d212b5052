#pragma once
/// Two runs of elements of equal length compared.

#include <span>

#include "moeweld/verify/diff.h"

namespace moeweld::verify {

/// Adds elements [first_element, first_element + num_elements) of a tensor. At most kCompareElements at once: sums are formed in sixteen
/// lanes and folded in lane order, so they depend on nothing but the elements. Types that are not arithmetic must be equal, and only
/// `different` is counted.
constexpr std::uint64_t kCompareElements = 1 << 18;
void compare_elements(DType dtype_a, const std::byte* a, DType dtype_b, const std::byte* b, std::uint64_t first_element,
                      std::uint64_t num_elements, DiffFigures& figures);

/// `later` continues where `figures` ends.
void add_figures(const DiffFigures& later, DiffFigures& figures);

}  // namespace moeweld::verify
