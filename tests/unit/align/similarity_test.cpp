#include "moeweld/align/similarity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "unit/align/experts.h"

namespace moeweld::align {
namespace {

double cosine(const Expert& a, const Expert& b) {
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (std::size_t n = 0; n < a.num_neurons; ++n) {
    const std::vector<double> x = a.neuron(n);
    const std::vector<double> y = b.neuron(n);
    for (std::size_t k = 0; k < x.size(); ++k) {
      ab += x[k] * y[k];
      aa += x[k] * x[k];
      bb += y[k] * y[k];
    }
  }
  return ab / std::sqrt(aa * bb);
}

TEST(Similarity, OfWeightsIsTheCosineAndSketchesComeNear) {
  std::mt19937 random(31);
  Layer a = random_layer(6, 300, 270, random);
  Layer b = a;
  for (std::size_t e = 0; e < 6; ++e) b.experts[e] = with_noise(a.experts[e], 0.02F * static_cast<float>(e + 1), random);
  const ExpertSimilarities exact = expert_similarities(6, a.router, a, b.router, b, 2);
  const ExpertSimilarities sketched = expert_similarities(6, a.router, a, b.router, b, 2, 0);
  EXPECT_FALSE(exact.is_sketched);
  EXPECT_TRUE(sketched.is_sketched);
  for (std::size_t i = 0; i < 6; ++i) {
    for (std::size_t j = 0; j < 6; ++j) {
      const double expected = cosine(a.experts[i], b.experts[j]);
      EXPECT_NEAR(exact.weights[i * 6 + j], expected, 1e-6);
      EXPECT_NEAR(sketched.weights[i * 6 + j], expected, 0.02);  // five standard deviations
    }
  }
}

TEST(Similarity, OfNothingIsZero) {
  std::mt19937 random(32);
  Layer a = random_layer(2, 4, 5, random);
  Layer b = a;
  b.experts[1] = Expert{4, 5, std::vector<float>(20), std::vector<float>(20), std::vector<float>(20)};
  std::fill(b.router.begin(), b.router.begin() + 5, 0.0F);
  const ExpertSimilarities found = expert_similarities(2, a.router, a, b.router, b, 1);
  EXPECT_EQ(found.weights[1], 0.0F);
  EXPECT_NEAR(found.weights[0], 1.0F, 1e-6);
  EXPECT_EQ(found.router[0], 0.0F);
  EXPECT_NEAR(found.router[3], 1.0F, 1e-6);
}

}  // namespace
}  // namespace moeweld::align
