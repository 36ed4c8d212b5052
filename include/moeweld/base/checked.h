#pragma once
/// Integer arithmetic that refuses to wrap, and small helpers on byte counts.

#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>

#include "moeweld/base/error.h"

namespace moeweld {

/// a + b, or nothing on overflow.
template <typename Integer>
std::optional<Integer> checked_add(Integer a, Integer b) {
  Integer result;
  if (__builtin_add_overflow(a, b, &result)) return std::nullopt;
  return result;
}

/// a * b, or nothing on overflow.
template <typename Integer>
std::optional<Integer> checked_multiply(Integer a, Integer b) {
  Integer result;
  if (__builtin_mul_overflow(a, b, &result)) return std::nullopt;
  return result;
}

/// Converts between integer types; throws Error(kInternal) if the value does not fit. For counts handed to MPI, BLAS and HDF5.
template <typename To, typename From>
To checked_cast(From value) {
  static_assert(std::is_integral_v<To> && std::is_integral_v<From>);
  To result;
  if (__builtin_add_overflow(value, From{0}, &result)) throw Error(ErrorCode::kInternal, "a count does not fit its integer type");
  return result;
}

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
constexpr std::uint64_t round_down(std::uint64_t value, std::uint64_t multiple) { return value / multiple * multiple; }

constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kGiB = 1024 * kMiB;

}  // namespace moeweld
