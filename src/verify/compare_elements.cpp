#include "verify/compare_elements.h"

#include <array>
#include <cmath>
#include <cstring>

#include "moeweld/base/error.h"
#include "moeweld/merge/decode.h"

namespace moeweld::verify {

namespace {

constexpr std::size_t kLanes = 16;
constexpr std::size_t kTile = 1024;
static_assert(kTile % kLanes == 0 && kCompareElements % kTile == 0);

using Values = std::array<double, kTile>;

void load(DType dtype, const std::byte* source, std::size_t count, Values& values) {
  if (dtype == DType::kF64) {
    std::memcpy(values.data(), source, count * sizeof(double));
    return;
  }
  std::array<float, kTile> decoded;
  merge::decode_elements(dtype, source, std::span(decoded).first(count));
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<double>(decoded[i]);
}

struct Lanes {
  std::array<double, kLanes> dot{};
  std::array<double, kLanes> squares_a{};
  std::array<double, kLanes> squares_b{};
};

double fold(const std::array<double, kLanes>& lanes) {
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

bool all_finite(const Values& values) {
  double sum = 0;  // 0·x is NaN exactly where x is not finite
  for (const double value : values) sum += 0 * value;
  return sum == 0;
}

/// Not finite on either side: out of all sums, counted.
void leave_out_non_finite(std::size_t count, Values& a, Values& b, DiffFigures& figures) {
  if (all_finite(a) && all_finite(b)) return;
  for (std::size_t i = 0; i < count; ++i) {
    if (std::isfinite(a[i]) && std::isfinite(b[i])) continue;
    a[i] = b[i] = 0;
    ++figures.non_finite;
  }
}

void add_values(const Values& a, const Values& b, std::uint64_t first_element, Lanes& lanes, DiffFigures& figures) {
  double largest = 0;
  for (std::size_t i = 0; i < kTile; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      lanes.dot[lane] += a[i + lane] * b[i + lane];
      lanes.squares_a[lane] += a[i + lane] * a[i + lane];
      lanes.squares_b[lane] += b[i + lane] * b[i + lane];
    }
  }
  for (std::size_t i = 0; i < kTile; ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  if (largest <= figures.max_difference) return;
  figures.max_difference = largest;
  for (std::size_t i = 0; i < kTile; ++i) {
    if (std::abs(a[i] - b[i]) != largest) continue;
    figures.max_element = first_element + i;
    return;
  }
}

std::uint64_t count_different_bytes(std::size_t element_size, const std::byte* a, const std::byte* b, std::uint64_t count) {
  if (std::memcmp(a, b, count * element_size) == 0) return 0;
  std::uint64_t different = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (std::memcmp(a + i * element_size, b + i * element_size, element_size) != 0) ++different;
  }
  return different;
}

}  // namespace

void compare_elements(DType dtype_a, const std::byte* a, DType dtype_b, const std::byte* b, std::uint64_t first_element,
                      std::uint64_t num_elements, DiffFigures& figures) {
  if (num_elements > kCompareElements) throw Error(ErrorCode::kInternal, "too many elements are compared at once");
  const bool same_type = dtype_a == dtype_b;
  if (same_type) figures.different += count_different_bytes(size_bytes(dtype_a), a, b, num_elements);
  if (!is_arithmetic(dtype_a) || !is_arithmetic(dtype_b)) {
    if (!same_type) throw Error(ErrorCode::kInternal, "tensors of unlike types without values are compared");
    return;
  }
  Lanes lanes;
  Values values_a;
  Values values_b;
  for (std::uint64_t done = 0; done < num_elements; done += kTile) {
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(kTile, num_elements - done));
    values_a.fill(0);
    values_b.fill(0);
    load(dtype_a, a + done * size_bytes(dtype_a), count, values_a);
    load(dtype_b, b + done * size_bytes(dtype_b), count, values_b);
    if (!same_type) {
      for (std::size_t i = 0; i < count; ++i) {
        const bool both_nan = std::isnan(values_a[i]) && std::isnan(values_b[i]);
        figures.different += !both_nan && values_a[i] != values_b[i] ? 1 : 0;
      }
    }
    leave_out_non_finite(count, values_a, values_b, figures);
    add_values(values_a, values_b, first_element + done, lanes, figures);
  }
  figures.dot += fold(lanes.dot);
  figures.squares_a += fold(lanes.squares_a);
  figures.squares_b += fold(lanes.squares_b);
}

void add_figures(const DiffFigures& later, DiffFigures& figures) {
  if (later.max_difference > figures.max_difference) {
    figures.max_difference = later.max_difference;
    figures.max_element = later.max_element;
  }
  figures.dot += later.dot;
  figures.squares_a += later.squares_a;
  figures.squares_b += later.squares_b;
  figures.different += later.different;
  figures.non_finite += later.non_finite;
}

std::optional<double> DiffFigures::cosine() const {
  if (squares_a <= 0 || squares_b <= 0) return std::nullopt;
  return dot / (std::sqrt(squares_a) * std::sqrt(squares_b));
}

}  // namespace moeweld::verify
