#include "align/products.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cstdint>
#include <random>
#include <vector>

namespace moeweld::align {
namespace {

class Products : public testing::Test {
 protected:
  void SetUp() override {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (std::vector<float>* rows : {&a_, &b_}) {
      for (float& value : *rows) value = normal(random);
    }
  }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }

  /// What the header says, in the plainest way.
  float expected(std::size_t i, std::size_t j) const {
    float sum = 0;
    for (std::size_t k = 0; k < kDepth; ++k) {
      const float product = a_[i * kDepth + k] * b_[j * kDepth + k];
      sum = sum + product;
    }
    return sum;
  }

  static constexpr std::size_t kA = 23;
  static constexpr std::size_t kB = 301;
  std::vector<float> a_ = std::vector<float>(kA * kDepth);
  std::vector<float> b_ = std::vector<float>(kB * kDepth);
};

TEST_F(Products, AreTheSameBitsOnEveryVectorWidthAndAnyNumberOfThreads) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    for (const int threads : {1, 3}) {
      std::vector<float> c(kA * (kB + 5), 0.5F);
      add_products(a_.data(), kA, b_.data(), kB, c.data(), kB + 5, threads);
      for (std::size_t i = 0; i < kA; ++i) {
        for (std::size_t j = 0; j < kB + 5; ++j) {
          ASSERT_EQ(c[i * (kB + 5) + j], j < kB ? 0.5F + expected(i, j) : 0.5F) << hwy::TargetName(target) << " " << i << " " << j;
        }
      }
    }
  }
}

}  // namespace
}  // namespace moeweld::align
