#include "moeweld/base/elementary.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace moeweld {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// ln 2 = high + low; high has 32 bits, so that k * high is exact for every exponent k.
constexpr double kLn2High = 0x1.62e42fee00000p-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;

// pi / 2 in pieces of 33 bits: k * piece is exact for |k| < 2^20.
constexpr std::array<double, 4> kHalfPiPieces = {0x1.921fb544p+0, 0x1.0b4611a6p-34, 0x1.3198a2ep-69, 0x1.b839a252049c1p-104};
constexpr double kHalfPiHigh = 0x1.921fb54442d18p+0;
constexpr double kHalfPiLow = 0x1.1a62633145c07p-54;

constexpr double kMaxAngle = 0x1p20;

double polynomial(double x, const double* coefficients, std::size_t count) {
  double sum = coefficients[count - 1];
  for (std::size_t i = count - 1; i-- > 0;) sum = sum * x + coefficients[i];
  return sum;
}

// Nearest integer by the usual trick: adding 1.5 * 2^52 leaves no fraction bits.
double round_to_integer(double x) {
  constexpr double kShift = 0x1.8p52;
  return (x + kShift) - kShift;
}

// 2^k for -1022 <= k <= 1023.
double power_of_two(int k) { return std::bit_cast<double>(static_cast<std::uint64_t>(k + 1023) << 52); }

// An angle less a multiple of pi / 2: high + low in [-pi/4, pi/4], and which quarter.
struct ReducedAngle {
  double high;
  double low;
  int quarter;
};

ReducedAngle reduce(double x) {
  const double k = round_to_integer(x * 0x1.45f306dc9c883p-1);
  double high = x - k * kHalfPiPieces[0];
  double low = 0.0;
  for (std::size_t i = 1; i < 3; ++i) {  // two-sum: what the subtraction rounds away is kept in low
    const double term = -(k * kHalfPiPieces[i]);
    const double sum = high + term;
    const double part = sum - high;
    low += (high - (sum - part)) + (term - part);
    high = sum;
  }
  low -= k * kHalfPiPieces[3];
  const double sum = high + low;
  return {sum, low - (sum - high), static_cast<int>(static_cast<std::int64_t>(k) & 3)};
}

double sine_kernel(double high, double low) {
  static constexpr double kTerms[] = {-1.0 / 6,
                                      1.0 / 120,
                                      -1.0 / 5040,
                                      1.0 / 362880,
                                      -1.0 / 39916800,
                                      1.0 / 6227020800.,
                                      -1.0 / 1307674368e3,
                                      1.0 / 355687428096000,
                                      -1.0 / 121645100408832e3};
  const double square = high * high;
  return high + (high * square * polynomial(square, kTerms, 9) + low * (1.0 - 0.5 * square));
}

double cosine_kernel(double high, double low) {
  static constexpr double kTerms[] = {1.0 / 24,
                                      -1.0 / 720,
                                      1.0 / 40320,
                                      -1.0 / 3628800,
                                      1.0 / 479001600,
                                      -1.0 / 87178291200,
                                      1.0 / 20922789888000,
                                      -1.0 / 6402373705728e3,
                                      1.0 / 243290200817664e4};
  const double square = high * high;
  const double half = 0.5 * square;
  const double main = 1.0 - half;
  return main + (((1.0 - main) - half) + (square * square * polynomial(square, kTerms, 9) - high * low));
}

// (asin(x) - x) / x for x^2 = square <= 1/4, by its Taylor series.
double arcsine_remainder(double square) {
  constexpr std::size_t kCount = 28;
  static constexpr auto kTerms = [] {
    std::array<double, kCount> terms{};
    double binomial = 1.0;
    for (std::size_t n = 1; n <= kCount; ++n) {
      binomial = binomial * static_cast<double>(2 * n - 1) / static_cast<double>(2 * n);
      terms[n - 1] = binomial / static_cast<double>(2 * n + 1);
    }
    return terms;
  }();
  return square * polynomial(square, kTerms.data(), kCount);
}

}  // namespace

double exact_exp(double x) {
  static constexpr double kTerms[] = {
      0.5,          1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,         1.0 / 5040,        1.0 / 40320,
      1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800., 1.0 / 87178291200.};
  if (std::isnan(x)) return x;
  if (x > 709.8) return kInfinity;
  if (x < -745.2) return 0.0;
  const double k = round_to_integer(x * 0x1.71547652b82fep+0);
  const double high = x - k * kLn2High;
  const double low = k * kLn2Low;
  const double reduced = high - low;
  const double lost = (high - reduced) - low;
  const double result = 1.0 + (reduced + (lost + reduced * reduced * polynomial(reduced, kTerms, 13)));
  const int exponent = static_cast<int>(k);
  const int half = exponent / 2;  // in two steps, since 2^exponent alone may not be a normal number
  return result * power_of_two(half) * power_of_two(exponent - half);
}

double exact_log(double x) {
  static constexpr double kTerms[] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                                      2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23, 2.0 / 25};
  if (std::isnan(x) || x == kInfinity) return x;
  if (x == 0.0) return -kInfinity;
  if (x < 0.0) return kNaN;
  int exponent = 0;
  if (x < std::numeric_limits<double>::min()) {
    x *= 0x1p54;
    exponent = -54;
  }
  const auto bits = std::bit_cast<std::uint64_t>(x);
  exponent += static_cast<int>(bits >> 52) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0x000fffffffffffffULL) | 0x3ff0000000000000ULL);
  if (mantissa > 0x1.6a09e667f3bcdp+0) {
    mantissa *= 0.5;
    ++exponent;
  }
  // log(1 + f) = f - f^2/2 + s (f^2/2 + R), s = f / (2 + f): only the small last term carries rounding errors.
  const double f = mantissa - 1.0;
  const double s = f / (2.0 + f);
  const double square = s * s;
  const double rest = square * polynomial(square, kTerms, 12);
  const double half_square = 0.5 * f * f;
  const double k = exponent;
  return k * kLn2High - ((half_square - (s * (half_square + rest) + k * kLn2Low)) - f);
}

double exact_sin(double x) {
  if (!(std::fabs(x) <= kMaxAngle)) return kNaN;
  if (std::fabs(x) < 0x1p-27) return x;
  const ReducedAngle angle = reduce(x);
  switch (angle.quarter) {
    case 0:
      return sine_kernel(angle.high, angle.low);
    case 1:
      return cosine_kernel(angle.high, angle.low);
    case 2:
      return -sine_kernel(angle.high, angle.low);
    default:
      return -cosine_kernel(angle.high, angle.low);
  }
}

double exact_cos(double x) {
  if (!(std::fabs(x) <= kMaxAngle)) return kNaN;
  const ReducedAngle angle = reduce(x);
  switch (angle.quarter) {
    case 0:
      return cosine_kernel(angle.high, angle.low);
    case 1:
      return -sine_kernel(angle.high, angle.low);
    case 2:
      return -cosine_kernel(angle.high, angle.low);
    default:
      return sine_kernel(angle.high, angle.low);
  }
}

double exact_acos(double x) {
  if (!(std::fabs(x) <= 1.0)) return kNaN;
  if (x == 1.0) return 0.0;
  if (std::fabs(x) <= 0.5) return kHalfPiHigh - (x - (kHalfPiLow - x * arcsine_remainder(x * x)));
  const double square = (1.0 - std::fabs(x)) * 0.5;
  const double root = std::sqrt(square);
  if (x < 0.0) return 2.0 * (kHalfPiHigh - (root + (root * arcsine_remainder(square) - kHalfPiLow)));
  // The root's upper half has an exact square, which tells what the root's rounding lost.
  const double upper = std::bit_cast<double>(std::bit_cast<std::uint64_t>(root) & 0xffffffff00000000ULL);
  const double lost = (square - upper * upper) / (root + upper);
  return 2.0 * (upper + (root * arcsine_remainder(square) + lost));
}

}  // namespace moeweld
