/// Decoding and rounding of every 16-bit code on every SIMD target.

#include "merge/kernels/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "moeweld/merge/simd_target.h"
#include "unit/merge/arrays.h"

namespace moeweld::merge {
namespace {

constexpr std::size_t kCodes = 65536;
const std::vector<DType> kSixteenBits = {DType::kBF16, DType::kF16};

void on_every_target(const std::function<void()>& work) {
  const std::string active = active_simd_target();
  for (const std::string& target : available_simd_targets()) {
    SCOPED_TRACE(target);
    choose_simd_target(target);
    work();
  }
  choose_simd_target(active);
}

std::vector<std::uint16_t> all_codes() {
  std::vector<std::uint16_t> codes(kCodes);
  for (std::size_t i = 0; i < kCodes; ++i) codes[i] = static_cast<std::uint16_t>(i);
  return codes;
}

template <typename T>
void expect_decodes_every_code(DType dtype) {
  const std::vector<std::uint16_t> codes = all_codes();
  std::vector<T> decoded(kCodes);
  decode(dtype, codes.data(), kCodes, decoded.data());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < kCodes; ++i) {
    const double expected = value_of_code(dtype, codes[i]);
    const bool right = std::isnan(expected) ? std::isnan(decoded[i]) && std::signbit(decoded[i]) == (i >= 0x8000)
                                            : decoded[i] == expected && std::signbit(decoded[i]) == std::signbit(expected);
    if (!right && ++wrong <= 3) ADD_FAILURE() << name(dtype) << " code " << i << " decodes to " << decoded[i] << ", not " << expected;
  }
  EXPECT_EQ(wrong, 0u);
}

TEST(Decode, EverySixteenBitCode) {
  on_every_target([] {
    for (const DType dtype : kSixteenBits) {
      expect_decodes_every_code<float>(dtype);
      expect_decodes_every_code<double>(dtype);
    }
  });
}

/// Encodes any number of floats: kernels take multiples of kPadElements.
std::vector<std::uint16_t> encoded(DType dtype, std::vector<float> values, NanPolicy nan) {
  const std::size_t count = values.size();
  values.resize((count + kPadElements - 1) / kPadElements * kPadElements);
  std::vector<std::uint16_t> codes(values.size());
  encode(dtype, values.data(), values.size(), nan, codes.data());
  codes.resize(count);
  return codes;
}

TEST(Encode, KeepsEverySixteenBitCode) {
  on_every_target([] {
    for (const DType dtype : kSixteenBits) {
      std::vector<float> values(kCodes);
      for (std::size_t i = 0; i < kCodes; ++i) values[i] = static_cast<float>(value_of_code(dtype, static_cast<std::uint16_t>(i)));
      const std::vector<std::uint16_t> codes = encoded(dtype, values, NanPolicy::kCanonical);
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < kCodes; ++i) {
        const std::size_t expected = std::isnan(values[i]) ? (dtype == DType::kBF16 ? 0x7FC0 : 0x7E00) : i;
        if (codes[i] != expected && ++wrong <= 3) ADD_FAILURE() << name(dtype) << " value of code " << i << " became code " << codes[i];
      }
      EXPECT_EQ(wrong, 0u);
    }
  });
}

TEST(Encode, RoundsToNearestEvenAtEveryBoundary) {
  on_every_target([] {
    for (const DType dtype : kSixteenBits) {
      const double largest = value_of_code(dtype, dtype == DType::kBF16 ? 0x7F7F : 0x7BFF);
      std::vector<float> values;
      for (std::uint16_t code = 0; value_of_code(dtype, code) <= largest; ++code) {
        const double low = value_of_code(dtype, code);
        // Half-way to the next code; beyond the largest one, half-way to what would be next.
        const auto middle = static_cast<float>(low + step_at(dtype, low) / 2);
        for (const float value : {std::nextafter(middle, 0.0F), middle, std::nextafter(middle, std::numeric_limits<float>::infinity())}) {
          values.push_back(value);
          values.push_back(-value);
        }
      }
      const std::vector<std::uint16_t> codes = encoded(dtype, values, NanPolicy::kCanonical);
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const std::uint16_t expected = code_of_value(dtype, round_to(dtype, values[i]));
        if (codes[i] != expected && ++wrong <= 3) {
          ADD_FAILURE() << values[i] << " became " << name(dtype) << " code " << codes[i] << ", not " << expected;
        }
      }
      EXPECT_EQ(wrong, 0u);
    }
  });
}

TEST(Encode, TooLargeBecomesInfinityAndTooSmallZero) {
  on_every_target([] {
    const float infinity = std::numeric_limits<float>::infinity();
    const float most = std::numeric_limits<float>::max();
    const float least = std::numeric_limits<float>::denorm_min();
    EXPECT_EQ(encoded(DType::kF16, {65504.0F, 65519.996F, 65520.0F, -65520.0F, 1e10F, most, infinity, -infinity}, NanPolicy::kCanonical),
              (std::vector<std::uint16_t>{0x7BFF, 0x7BFF, 0x7C00, 0xFC00, 0x7C00, 0x7C00, 0x7C00, 0xFC00}));
    EXPECT_EQ(encoded(DType::kBF16, {most, -most, infinity, -infinity, std::bit_cast<float>(0x7F7F7FFFu)}, NanPolicy::kCanonical),
              (std::vector<std::uint16_t>{0x7F80, 0xFF80, 0x7F80, 0xFF80, 0x7F7F}));
    // 2^-25 is half of F16's smallest number, and goes to even: zero.
    EXPECT_EQ(encoded(DType::kF16, {0x1p-24F, 0x1p-25F, 0x1.000002p-25F, -0x1p-25F, least, -0.0F, 0x1.8p-24F}, NanPolicy::kCanonical),
              (std::vector<std::uint16_t>{1, 0, 1, 0x8000, 0, 0x8000, 2}));
    EXPECT_EQ(encoded(DType::kBF16, {least, -least, 0x1p-133F, 0x1p-134F, 0x1.8p-133F}, NanPolicy::kCanonical),
              (std::vector<std::uint16_t>{0, 0x8000, 1, 0, 2}));
  });
}

TEST(Encode, ConversionsKeepSignAndPayloadOfNan) {
  on_every_target([] {
    const std::vector<float> nans = {std::bit_cast<float>(0x7FC00000u), std::bit_cast<float>(0xFFC00000u),
                                     std::bit_cast<float>(0x7FD50000u), std::bit_cast<float>(0xFFE12345u),
                                     std::bit_cast<float>(0x7F800001u)};  // the last is signalling, its payload low
    EXPECT_EQ(encoded(DType::kBF16, nans, NanPolicy::kPayload), (std::vector<std::uint16_t>{0x7FC0, 0xFFC0, 0x7FD5, 0xFFE1, 0x7FC0}));
    EXPECT_EQ(encoded(DType::kF16, nans, NanPolicy::kPayload), (std::vector<std::uint16_t>{0x7E00, 0xFE00, 0x7EA8, 0xFF09, 0x7E00}));
    EXPECT_EQ(encoded(DType::kBF16, nans, NanPolicy::kCanonical), std::vector<std::uint16_t>(5, 0x7FC0));
    EXPECT_EQ(encoded(DType::kF16, nans, NanPolicy::kCanonical), std::vector<std::uint16_t>(5, 0x7E00));
  });
}

TEST(Encode, DoublesRoundToNearestEvenFloats) {
  std::mt19937_64 engine(20260104);
  std::vector<double> values = {
      0.0,      -0.0,     0x1.fffffep127, 0x1.fffffefp127, 0x1.ffffffp127, -0x1.ffffffp127, 1e300, std::numeric_limits<double>::infinity(),
      0x1p-149, 0x1p-150, 0x1.8p-149,     0x1.000001p-150, -0x1p-150,      1e-320};
  for (int i = 0; i < 20000; ++i) {
    const auto low = std::bit_cast<float>(static_cast<std::uint32_t>(engine()) & 0x7FFFFFFFu);
    if (!std::isfinite(low)) continue;
    const double middle = low + step_at(DType::kF32, low) / 2;
    for (const double value : {std::nextafter(middle, 0.0), middle, -middle, std::nextafter(middle, 1e300)}) values.push_back(value);
  }
  values.resize((values.size() + kPadElements - 1) / kPadElements * kPadElements);
  on_every_target([&] {
    std::vector<float> floats(values.size());
    encode(DType::kF32, values.data(), values.size(), NanPolicy::kCanonical, floats.data());
    std::vector<float> narrowed(values.size());
    decode(DType::kF64, values.data(), values.size(), narrowed.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(floats[i], round_to(DType::kF32, values[i])) << std::hexfloat << values[i];
      ASSERT_EQ(narrowed[i], floats[i]) << std::hexfloat << values[i];
      ASSERT_EQ(std::signbit(floats[i]), std::signbit(values[i]));
    }
  });
}

TEST(CountNonFinite, FindsInfinitiesAndNan) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32, DType::kF64}) {
    Array array(dtype, {1, -2, 0, std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), 3});
    EXPECT_EQ(count_non_finite(dtype, array.bytes.data(), 6), 2u) << name(dtype);
    std::fill_n(array.bytes.end() - static_cast<std::ptrdiff_t>(size_bytes(dtype)), size_bytes(dtype), std::byte{0xFF});
    EXPECT_EQ(count_non_finite(dtype, array.bytes.data(), 6), 3u) << name(dtype);
  }
}

}  // namespace
}  // namespace moeweld::merge
