#include "moeweld/base/elementary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

namespace moeweld {
namespace {

constexpr int kNumPoints = 400'000;

// Distance in units of the last place of the true value, which long double (64 bits) knows to 2^-11 of such a unit.
double error_in_ulps(double actual, long double expected) {
  if (static_cast<double>(expected) == actual) return 0.0;
  const double magnitude = std::max(std::fabs(static_cast<double>(expected)), std::numeric_limits<double>::min());
  const double ulp = std::nextafter(magnitude, std::numeric_limits<double>::infinity()) - magnitude;
  return static_cast<double>(std::fabs(static_cast<long double>(actual) - expected) / ulp);
}

void expect_accurate(const char* what, double (*function)(double), long double (*reference)(long double),
                     const std::function<double(std::mt19937_64&)>& draw) {
  constexpr std::uint64_t kSeed = 20240611;
  std::mt19937_64 generator(kSeed);
  double worst = 0.0;
  double worst_at = 0.0;
  for (int i = 0; i < kNumPoints; ++i) {
    const double x = draw(generator);
    const double error = error_in_ulps(function(x), reference(x));
    if (!(error <= worst)) {
      worst = error;
      worst_at = x;
    }
  }
  EXPECT_LE(worst, 2.0) << what << " at " << std::hexfloat << worst_at << ", seed " << std::dec << kSeed;
}

double uniform_between(std::mt19937_64& generator, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(generator);
}

// Of either sign, the logarithm of its size uniform.
double spread(std::mt19937_64& generator, double low_exponent, double high_exponent) {
  const double size = std::exp2(uniform_between(generator, low_exponent, high_exponent));
  return (generator() & 1) != 0 ? size : -size;
}

TEST(Elementary, ExpIsAccurateToTwoUlps) {
  expect_accurate("exp", exact_exp, expl, [](auto& generator) { return uniform_between(generator, -690, 690); });
  expect_accurate("exp", exact_exp, expl, [](auto& generator) { return spread(generator, -60, 2); });
}

TEST(Elementary, LogIsAccurateToTwoUlps) {
  expect_accurate("log", exact_log, logl, [](auto& generator) { return std::fabs(spread(generator, -1074, 1023.9)); });
  expect_accurate("log", exact_log, logl, [](auto& generator) { return uniform_between(generator, 0.5, 2); });
  expect_accurate("log", exact_log, logl, [](auto& generator) { return 1.0 + spread(generator, -52, -2); });
}

TEST(Elementary, SinAndCosAreAccurateToTwoUlps) {
  const auto spread_wide = [](auto& generator) { return spread(generator, -40, 20); };
  expect_accurate("sin", exact_sin, sinl, spread_wide);
  expect_accurate("cos", exact_cos, cosl, spread_wide);
  const auto one_turn = [](auto& generator) { return uniform_between(generator, -6.3, 6.3); };
  expect_accurate("sin", exact_sin, sinl, one_turn);
  expect_accurate("cos", exact_cos, cosl, one_turn);
}

TEST(Elementary, SinAndCosAreAccurateNextToMultiplesOfHalfPi) {
  const auto near = [](auto& generator) {
    const double k = std::round(uniform_between(generator, -660'000, 660'000));
    const double x = static_cast<double>(k * 1.57079632679489661923132169163975144L);
    return std::nextafter(x, (generator() & 1) != 0 ? 1e9 : -1e9);
  };
  // The x87 reduction of sinl is exact in glibc, so the reference holds where nearly all digits cancel.
  expect_accurate("sin", exact_sin, sinl, near);
  expect_accurate("cos", exact_cos, cosl, near);
}

TEST(Elementary, AcosIsAccurateToTwoUlps) {
  expect_accurate("acos", exact_acos, acosl, [](auto& generator) { return uniform_between(generator, -1, 1); });
  expect_accurate("acos", exact_acos, acosl, [](auto& generator) { return 1.0 - std::exp2(uniform_between(generator, -53, -1)); });
  expect_accurate("acos", exact_acos, acosl, [](auto& generator) { return std::exp2(uniform_between(generator, -53, -1)) - 1.0; });
}

TEST(Elementary, EdgesAreThoseOfTheFunctions) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(exact_exp(0.0), 1.0);
  EXPECT_EQ(exact_exp(-0.0), 1.0);
  EXPECT_EQ(exact_exp(800), infinity);
  EXPECT_EQ(exact_exp(infinity), infinity);
  EXPECT_EQ(exact_exp(-800), 0.0);
  EXPECT_EQ(exact_exp(-infinity), 0.0);
  EXPECT_EQ(exact_exp(709.79), infinity);
  EXPECT_GT(exact_exp(-745.1), 0.0);
  EXPECT_EQ(exact_log(1.0), 0.0);
  EXPECT_EQ(exact_log(0.0), -infinity);
  EXPECT_EQ(exact_log(infinity), infinity);
  EXPECT_EQ(exact_sin(0.0), 0.0);
  EXPECT_TRUE(std::signbit(exact_sin(-0.0)));
  EXPECT_EQ(exact_cos(0.0), 1.0);
  EXPECT_EQ(exact_acos(1.0), 0.0);
  EXPECT_EQ(exact_acos(-1.0), 3.141592653589793);
  EXPECT_EQ(exact_acos(0.0), 1.5707963267948966);
  for (const double bad : {std::nan(""), -1.0}) EXPECT_TRUE(std::isnan(exact_log(bad)));
  for (const double bad : {std::nan(""), 1.0000000000000002, -2.0}) EXPECT_TRUE(std::isnan(exact_acos(bad)));
  for (const double bad : {std::nan(""), infinity, 0x1.0p21}) EXPECT_TRUE(std::isnan(exact_sin(bad)) && std::isnan(exact_cos(bad)));
  EXPECT_TRUE(std::isnan(exact_exp(std::nan(""))));
}

}  // namespace
}  // namespace moeweld
