#include "moeweld/base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace moeweld {
namespace {

float from_word(std::uint32_t word) { return static_cast<float>(word >> 8) / 16777216.0F; }

// The known answer of Random123's kat_vectors for philox4x32-10 with a zero counter and a zero key.
TEST(Uniform, IsPhilox4x32WithTenRounds) {
  const RandomStream zero;
  EXPECT_EQ(uniform(zero, 0), from_word(0x6627e8d5));
  EXPECT_EQ(uniform(zero, 1), from_word(0xe169c58d));
  EXPECT_EQ(uniform(zero, 2), from_word(0xbc57ac4c));
  EXPECT_EQ(uniform(zero, 3), from_word(0x9b00dbd8));
}

TEST(Uniform, SeedStreamAndIndexAllCountInAllTheirBits) {
  // Philox4x32-10 from its paper (Salmon et al. 2011), in the plainest way.
  const auto reference = [](std::uint64_t seed, std::uint64_t stream, std::uint64_t block, std::size_t lane) {
    std::uint32_t c[4] = {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), static_cast<std::uint32_t>(stream),
                          static_cast<std::uint32_t>(stream >> 32)};
    std::uint32_t k[2] = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = 0xD2511F53ULL * c[0];
      const std::uint64_t p1 = 0xCD9E8D57ULL * c[2];
      const std::uint32_t next[4] = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(p1),
                                     static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(p0)};
      for (int i = 0; i < 4; ++i) c[i] = next[i];
      k[0] += 0x9E3779B9;
      k[1] += 0xBB67AE85;
    }
    return from_word(c[lane]);
  };
  for (const std::uint64_t seed : {std::uint64_t{1}, std::uint64_t{1} << 40, UINT64_MAX}) {
    for (const std::uint64_t stream : {std::uint64_t{2}, std::uint64_t{7} << 50}) {
      for (const std::uint64_t index : {std::uint64_t{5}, (std::uint64_t{1} << 36) + 2, UINT64_MAX}) {
        EXPECT_EQ(uniform({seed, stream}, index), reference(seed, stream, index / 4, index % 4));
      }
    }
  }
}

TEST(Fill, GivesWhatSingleCallsGiveFromAnyStart) {
  const RandomStream stream{42, stream_id("model.layers.0.mlp.gate.weight/1")};
  for (const std::uint64_t first : {0, 1, 2, 3, 7, 1001}) {
    std::vector<float> uniforms(19);
    std::vector<double> normals(19);
    fill_uniform(stream, first, uniforms);
    fill_normal(stream, first, normals);
    for (std::size_t i = 0; i < uniforms.size(); ++i) {
      EXPECT_EQ(uniforms[i], uniform(stream, first + i));
      EXPECT_EQ(normals[i], normal(stream, first + i));
    }
  }
}

TEST(Uniform, HasTheMomentsOfTheUnitInterval) {
  const std::size_t count = 1'000'000;
  std::vector<float> values(count);
  fill_uniform({1, stream_id("x")}, 0, values);
  double sum = 0;
  double squares = 0;
  for (const float value : values) {
    ASSERT_GE(value, 0.0F);
    ASSERT_LT(value, 1.0F);
    sum += value;
    squares += double{value} * value;
  }
  EXPECT_NEAR(sum / count, 0.5, 0.002);
  EXPECT_NEAR(squares / count, 1.0 / 3, 0.002);
}

TEST(Normal, HasTheMomentsOfTheStandardNormal) {
  const std::size_t count = 1'000'000;
  std::vector<double> values(count);
  fill_normal({1, stream_id("x")}, 0, values);
  double moments[5] = {};
  double neighbours = 0;
  for (std::size_t i = 0; i < count; ++i) {
    for (int power = 1; power <= 4; ++power) moments[power] += std::pow(values[i], power) / count;
    neighbours += values[i] * values[i ^ 1] / count;
  }
  EXPECT_NEAR(moments[1], 0, 0.005);
  EXPECT_NEAR(moments[2], 1, 0.01);
  EXPECT_NEAR(moments[3], 0, 0.02);
  EXPECT_NEAR(moments[4], 3, 0.05);
  EXPECT_NEAR(neighbours, 0, 0.01);
}

TEST(StreamId, DiffersByName) {
  EXPECT_EQ(stream_id(""), 0x2d06800538d394c2ULL);  // XXH3's value for nothing
  EXPECT_NE(stream_id("a/0"), stream_id("a/1"));
}

}  // namespace
}  // namespace moeweld
