#include "moeweld/align/neuron_match.h"

#include <gtest/gtest.h>

#include "align/neurons.h"
#include "align/products.h"
#include "moeweld/align/assignment.h"
#include "unit/align/experts.h"

namespace moeweld::align {
namespace {

constexpr std::uint64_t kAlwaysSketch = 0;
constexpr std::uint64_t kNeverSketch = ~std::uint64_t{0};

double product(const Expert& a, const Expert& b, const Order& order) {
  double sum = 0;
  for (std::size_t n = 0; n < order.size(); ++n) {
    const std::vector<double> x = a.neuron(n);
    const std::vector<double> y = b.neuron(order[n]);
    for (std::size_t k = 0; k < x.size(); ++k) sum += x[k] * y[k];
  }
  return sum;
}

TEST(NeuronMatch, IsTheAssignmentOnAllProductsOfNeurons) {
  std::mt19937 random(11);
  for (const std::size_t hidden : {5UL, 300UL}) {
    const Expert a = random_expert(37, hidden, random);
    const Expert b = random_expert(37, hidden, random);
    std::vector<float> products(37 * 37);
    for (std::size_t i = 0; i < 37; ++i) {
      for (std::size_t j = 0; j < 37; ++j) {
        const std::vector<double> x = a.neuron(i);
        const std::vector<double> y = b.neuron(j);
        double sum = 0;
        for (std::size_t k = 0; k < x.size(); ++k) sum += x[k] * y[k];
        products[i * 37 + j] = static_cast<float>(sum);
      }
    }
    const Order expected = assign(products, 37);
    for (const int threads : {1, 3}) {
      const NeuronMatch match = match_neurons(a.matrices(), b.matrices(), threads, kNeverSketch);
      EXPECT_EQ(match.order, expected);
      EXPECT_NEAR(match.product, product(a, b, expected), 1e-9);
      // Sketches have nothing to go by here, so they must not be trusted.
      EXPECT_EQ(match_neurons(a.matrices(), b.matrices(), threads, kAlwaysSketch).order, expected);
    }
  }
}

TEST(NeuronMatch, FindsAShuffleWithNoiseByProductsAndBySketches) {
  std::mt19937 random(12);
  const Expert a = random_expert(400, 520, random);
  const Order order = shuffled(400, random);
  const Expert b = permuted(with_noise(a, 0.02F, random), order);
  for (const std::uint64_t from : {kAlwaysSketch, kNeverSketch}) {
    const NeuronMatch match = match_neurons(a.matrices(), b.matrices(), 2, from);
    EXPECT_EQ(match.order, inverse(order));
    EXPECT_NEAR(match.product, product(a, b, match.order), 1e-7);
  }
}

TEST(NeuronMatch, DeadAndDoubledNeuronsKeepTheirPlaces) {
  std::mt19937 random(13);
  Expert a = random_expert(60, 40, random);
  for (std::size_t h = 0; h < 40; ++h) {
    for (std::vector<float>* matrix : {&a.gate, &a.up}) {
      (*matrix)[7 * 40 + h] = (*matrix)[31 * 40 + h] = 0;
      (*matrix)[9 * 40 + h] = (*matrix)[50 * 40 + h];
    }
    a.down[h * 60 + 7] = a.down[h * 60 + 31] = 0;
    a.down[h * 60 + 9] = a.down[h * 60 + 50];
  }
  for (const std::uint64_t from : {kAlwaysSketch, kNeverSketch}) {
    EXPECT_EQ(match_neurons(a.matrices(), a.matrices(), 1, from).order, identity(60));
  }
}

TEST(NeuronMatch, SketchesKeepInnerProducts) {
  std::mt19937 random(14);
  const Expert a = random_expert(130, 700, random);
  std::vector<float> sketches;
  sketch_neurons(a.matrices(), sketches, 2);
  for (const auto& [i, j] : {std::pair(0, 0), std::pair(129, 129), std::pair(3, 77), std::pair(128, 5)}) {
    const std::vector<double> x = a.neuron(static_cast<std::size_t>(i));
    const std::vector<double> y = a.neuron(static_cast<std::size_t>(j));
    double exact = 0;
    double lengths = 0;
    double sketched = 0;
    for (std::size_t k = 0; k < x.size(); ++k) {
      exact += x[k] * y[k];
      lengths += x[k] * x[k];
    }
    for (std::size_t k = 0; k < kDepth; ++k) {
      sketched +=
          static_cast<double>(sketches[static_cast<std::size_t>(i) * kDepth + k]) * sketches[static_cast<std::size_t>(j) * kDepth + k];
    }
    EXPECT_NEAR(sketched, exact, 0.35 * lengths) << i << " " << j;
  }
}

TEST(NeuronMatch, KeepingPlacesIsTheSumOfAllProducts) {
  std::mt19937 random(15);
  const Expert a = random_expert(150, 33, random);
  const Expert b = random_expert(150, 33, random);
  EXPECT_NEAR(keep_neurons(a.matrices(), b.matrices(), 2).product, product(a, b, identity(150)), 1e-9);
  EXPECT_NEAR(squared_norm(a.matrices(), 2), product(a, a, identity(150)), 1e-9);
}

}  // namespace
}  // namespace moeweld::align
