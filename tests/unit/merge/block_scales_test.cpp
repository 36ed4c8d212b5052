/// Block-scaled FP8 against the definition of E4M3FN, on every SIMD target.

#include "moeweld/merge/block_scales.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "moeweld/merge/simd_target.h"

namespace moeweld::merge {
namespace {

void on_every_target(const std::function<void()>& work) {
  const std::string active = active_simd_target();
  for (const std::string& target : available_simd_targets()) {
    SCOPED_TRACE(target);
    choose_simd_target(target);
    work();
  }
  choose_simd_target(active);
}

/// By the definition: sign, four exponent bits with bias 7, three fraction bits.
double value_of(unsigned code) {
  const unsigned exponent = code >> 3 & 15;
  const unsigned fraction = code & 7;
  if (exponent == 15 && fraction == 7) return std::numeric_limits<double>::quiet_NaN();
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, static_cast<int>(exponent) - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

std::vector<float> decoded(const std::vector<std::byte>& codes, std::uint64_t first_column, const std::vector<float>& scales) {
  std::vector<float> values(codes.size());
  decode_block_scaled(codes.data(), first_column, scales.data(), values);
  return values;
}

std::byte encoded(float value) {
  const float scale = 1;
  std::byte code{};
  encode_block_scaled({&value, 1}, 0, &scale, &code);
  return code;
}

TEST(DecodeE4M3, EveryCode) {
  on_every_target([] {
    std::vector<std::byte> codes;
    for (unsigned code = 0; code < 256; ++code) codes.push_back(static_cast<std::byte>(code));
    const std::vector<float> values = decoded(codes, 0, {1.0F, 1.0F});
    for (unsigned code = 0; code < 256; ++code) {
      const double expected = value_of(code);
      if (std::isnan(expected)) {
        EXPECT_EQ(std::bit_cast<std::uint32_t>(values[code]), 0x7FC00000U) << code;
      } else {
        EXPECT_EQ(values[code], expected) << code;
        EXPECT_EQ(std::signbit(values[code]), code >= 128) << code;
      }
    }
  });
}

TEST(DecodeBlockScaled, TakesEachColumnsScaleFromItsBlockAndRoundsOnce) {
  // 576 columns: the last block has 64.
  std::mt19937 generator(3);
  const std::vector<float> scales = {0.1F, 3.0e-5F, -7.7F, 1e30F, 1e-30F};
  std::vector<std::byte> row;
  for (int i = 0; i < 576; ++i) row.push_back(static_cast<std::byte>(generator() % 256));
  on_every_target([&] {
    for (const std::size_t first : {0, 1, 127, 128, 300, 511, 512, 575}) {
      for (const std::size_t end : {first, first + 1, std::min<std::size_t>(first + 129, 576), std::size_t{576}}) {
        const std::vector<float> values =
            decoded({row.begin() + static_cast<long>(first), row.begin() + static_cast<long>(end)}, first, scales);
        for (std::size_t column = first; column < end; ++column) {
          // The product of 4 and 24 significant bits is exact in float64, so this rounds once.
          const auto expected =
              static_cast<float>(value_of(static_cast<unsigned>(row[column])) * static_cast<double>(scales[column / 128]));
          if (std::isnan(expected)) {
            EXPECT_TRUE(std::isnan(values[column - first]));
          } else {
            EXPECT_EQ(values[column - first], expected) << first << " to " << end << " at " << column;
          }
        }
      }
    }
  });
}

TEST(DecodeBlockScaled, CountsNanCodes) {
  on_every_target([] {
    std::vector<std::byte> codes(300, std::byte{0x38});
    for (const std::size_t i : {0, 5, 127, 128, 299}) codes[i] = i % 2 == 0 ? std::byte{0x7F} : std::byte{0xFF};
    std::vector<float> values(codes.size());
    const std::vector<float> scales = {1, 1, std::numeric_limits<float>::quiet_NaN()};
    EXPECT_EQ(decode_block_scaled(codes.data(), 0, scales.data(), values), 5U);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(values[298]), 0x7FC00000U);
  });
}

TEST(EncodeE4M3, KeepsEveryCode) {
  on_every_target([] {
    for (unsigned code = 0; code < 256; ++code) {
      if (std::isnan(value_of(code))) continue;
      EXPECT_EQ(static_cast<unsigned>(encoded(static_cast<float>(value_of(code)))), code);
    }
  });
}

TEST(EncodeE4M3, RoundsToNearestEvenAroundEveryMidpoint) {
  on_every_target([] {
    for (unsigned code = 0; code < 0x7E; ++code) {
      const auto middle = static_cast<float>((value_of(code) + value_of(code + 1)) / 2);  // exact
      EXPECT_EQ(static_cast<unsigned>(encoded(middle)), code + code % 2);
      EXPECT_EQ(static_cast<unsigned>(encoded(-middle)), 0x80 + code + code % 2);
      EXPECT_EQ(static_cast<unsigned>(encoded(std::nextafter(middle, 0.0F))), code);
      EXPECT_EQ(static_cast<unsigned>(encoded(std::nextafter(middle, 500.0F))), code + 1);
    }
  });
}

TEST(EncodeE4M3, SaturatesFiniteValuesOnly) {
  on_every_target([] {
    EXPECT_EQ(encoded(std::nextafter(448.0F, 1e9F)), std::byte{0x7E});
    EXPECT_EQ(encoded(470.0F), std::byte{0x7E});
    EXPECT_EQ(encoded(-std::numeric_limits<float>::max()), std::byte{0xFE});
    EXPECT_EQ(encoded(std::numeric_limits<float>::infinity()), std::byte{0x7F});
    EXPECT_EQ(encoded(-std::numeric_limits<float>::infinity()), std::byte{0x7F});
    EXPECT_EQ(encoded(-std::numeric_limits<float>::quiet_NaN()), std::byte{0x7F});
    EXPECT_EQ(encoded(std::numeric_limits<float>::denorm_min()), std::byte{0x00});
  });
}

/// |x - q s| is at most half a unit in the last place of q, times s; the quotient's own rounding adds 2^-24 of it.
void expect_bounded(float value, std::byte code, float scale) {
  const double quantised = value_of(static_cast<unsigned>(code));
  const double magnitude = std::max(std::abs(quantised), std::ldexp(1.0, -6));
  const double unit = std::ldexp(1.0, std::ilogb(magnitude) - 3);
  // Next to a power of two the spacing below is half of that above.
  EXPECT_LE(std::abs(static_cast<double>(value) - quantised * scale), unit / 2 * scale * (1 + 1e-6) + std::abs(value) * 1e-7)
      << value << " became " << quantised << " x " << scale;
}

TEST(EncodeBlockScaled, EveryBlocksErrorIsBoundedAndItsLargestValueFillsTheRange) {
  std::mt19937 generator(5);
  std::normal_distribution<float> normal;
  constexpr std::size_t kColumns = 576;
  const std::vector<float> sizes = {1.0F, 1e-6F, 3e8F, 1e-38F, 1e37F};
  std::vector<float> row;
  for (std::size_t i = 0; i < kColumns; ++i) row.push_back(normal(generator) * sizes[i / 128]);
  row[200] = std::numeric_limits<float>::quiet_NaN();
  row[520] = std::numeric_limits<float>::infinity();
  on_every_target([&] {
    std::vector<float> maxima(5, 0.0F);
    // In two parts, as rows of a band are: the second does not start with a block.
    raise_block_maxima(std::span(row).first(301), 0, maxima.data());
    raise_block_maxima(std::span(row).subspan(301), 301, maxima.data());
    std::vector<float> scales;
    for (std::size_t block = 0; block < 5; ++block) {
      float expected = 0;
      for (std::size_t i = block * 128; i < std::min<std::size_t>(kColumns, block * 128 + 128); ++i) {
        if (std::isfinite(row[i])) expected = std::max(expected, std::abs(row[i]));
      }
      EXPECT_EQ(maxima[block], expected);
      scales.push_back(block_scale(maxima[block]));
    }
    std::vector<std::byte> codes(kColumns);
    encode_block_scaled(row, 0, scales.data(), codes.data());
    std::vector<bool> filled(5, false);
    for (std::size_t i = 0; i < kColumns; ++i) {
      if (!std::isfinite(row[i])) {
        EXPECT_EQ(codes[i], std::byte{0x7F});
        continue;
      }
      expect_bounded(row[i], codes[i], scales[i / 128]);
      if ((static_cast<unsigned>(codes[i]) & 0x7F) == 0x7E) filled[i / 128] = true;
    }
    EXPECT_EQ(filled, (std::vector<bool>{true, true, true, false, true}));  // 1e-38 / 448 is no normal number
  });
}

TEST(BlockScale, OfZerosIsTheSmallestNormalNumber) {
  EXPECT_EQ(block_scale(0), std::numeric_limits<float>::min());
  EXPECT_EQ(block_scale(448), 1);
  EXPECT_EQ(block_scale(1), 1.0F / 448.0F);
}

}  // namespace
}  // namespace moeweld::merge
