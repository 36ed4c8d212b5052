#include "moeweld/base/shape.h"

#include "moeweld/base/checked.h"
#include "moeweld/base/error.h"

namespace moeweld {
namespace {

std::uint64_t product(const Shape& shape, std::size_t count) {
  // A zero extent makes the product zero however large the others are.
  for (std::size_t i = 0; i < count; ++i) {
    if (shape[i] == 0) return 0;
  }
  std::uint64_t result = 1;
  for (std::size_t i = 0; i < count; ++i) {
    const auto next = checked_multiply(result, shape[i]);
    if (!next) throw Error(ErrorCode::kInvalidInput, "the shape " + to_string(shape) + " has more than 2^64 - 1 elements");
    result = *next;
  }
  return result;
}

}  // namespace

std::uint64_t num_elements(const Shape& shape) { return product(shape, shape.size()); }

std::uint64_t row_length(const Shape& shape) { return shape.empty() ? 1 : shape.back(); }

std::uint64_t num_rows(const Shape& shape) { return product(shape, shape.empty() ? 0 : shape.size() - 1); }

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (const std::uint64_t extent : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(extent);
  }
  return text + "]";
}

}  // namespace moeweld
