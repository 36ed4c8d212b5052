/// ties against its definition, and its selection among equal magnitudes.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "unit/merge/arrays.h"

namespace moeweld::merge {
namespace {

using Real = long double;

constexpr std::uint64_t kSeed = 20260102;
constexpr std::size_t kBlock = kBlockElements;

struct Settings {
  bool normalize = true;
  bool rescale = false;
  double lambda = 1;
  std::vector<double> weights;
  std::vector<double> densities;
};

/// A base (input 0) and its fine-tunes.
Case ties_case(DType output, std::vector<Array> inputs, const Settings& settings) {
  std::vector<Parameters> per_model(1);
  for (std::size_t k = 0; k + 1 < inputs.size(); ++k)
    per_model.push_back({{"weight", settings.weights[k]}, {"density", settings.densities[k]}});
  return Case("ties", output, std::move(inputs), 0,
              {{"normalize", settings.normalize}, {"rescale", settings.rescale}, {"lambda", settings.lambda}}, per_model);
}

/// What the definition says of one task vector: kept, dropped, or too close to the threshold to tell.
enum class Kept : char { kNo, kYes, kEither };
struct Trimmed {
  std::vector<Real> delta;
  std::vector<Kept> kept;
  Real scale = 1;
};

Trimmed trim(const Array& model, const Array& base, double density, bool rescale, Real relative) {
  const std::size_t count = model.values.size();
  Trimmed result;
  for (std::size_t i = 0; i < count; ++i) result.delta.push_back(static_cast<Real>(model.values[i]) - base.values[i]);
  result.kept.assign(count, Kept::kYes);
  if (density <= 0) result.kept.assign(count, Kept::kNo);
  std::vector<Real> sizes(count);
  std::transform(result.delta.begin(), result.delta.end(), sizes.begin(), [](Real delta) { return std::abs(delta); });
  std::sort(sizes.begin(), sizes.end(), std::greater<>());
  const auto keep = std::max<std::size_t>(1, static_cast<std::size_t>(std::floor(density * static_cast<double>(count))));
  if (density > 0 && density < 1 && keep < count) {
    for (std::size_t i = 0; i < count; ++i) {
      const Real size = std::abs(result.delta[i]);
      const Real close = relative * (std::abs(model.values[i]) + std::abs(base.values[i]));
      if (size >= sizes[keep - 1] && size - sizes[keep] > close) continue;
      result.kept[i] = size <= sizes[keep] && sizes[keep - 1] - size > close ? Kept::kNo : Kept::kEither;
    }
  }
  if (rescale && density > 0 && density < 1) {
    Real all = 0, some = 0;
    for (std::size_t i = 0; i < count; ++i) {
      all += sizes[i];
      if (i < keep) some += sizes[i];
    }
    result.scale = all < 1e-7L || some < 1e-7L ? 1 : all / some;
  }
  return result;
}

/// Fraction of the elements that lie too close to a border to be compared.
double expect_agrees(const Case& merge_case, const Settings& settings) {
  const DType output = merge_case.task.output_dtype;
  const Real relative = std::ldexp(Real{1}, computes_in_float64(output) ? -50 : -21);
  const Array& base = merge_case.arrays[0];
  const std::size_t models = settings.weights.size();
  std::vector<Trimmed> vectors;
  for (std::size_t k = 0; k < models; ++k)
    vectors.push_back(trim(merge_case.arrays[k + 1], base, settings.densities[k], settings.rescale, relative));
  const std::vector<double> result = merge_case.run();
  std::size_t left_out = 0;
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < result.size(); ++i) {
    const Real origin = base.values[i];
    std::vector<Real> terms(models);
    std::vector<Real> sizes(models);
    Real sum = 0, close = 0;
    bool decided = true, plus = false, minus = false;
    for (std::size_t k = 0; k < models; ++k) {
      const Real value = merge_case.arrays[k + 1].values[i];
      decided = decided && vectors[k].kept[i] != Kept::kEither;
      const Real factor = settings.weights[k] * vectors[k].scale;
      terms[k] = vectors[k].kept[i] == Kept::kYes ? factor * vectors[k].delta[i] : 0;
      sizes[k] = vectors[k].kept[i] == Kept::kYes ? std::abs(factor) * (std::abs(value) + std::abs(origin)) : 0;
      if (terms[k] != 0 && std::abs(terms[k]) <= relative * sizes[k]) decided = false;
      sum += terms[k];
      close += relative * sizes[k];
      plus = plus || terms[k] > 0;
      minus = minus || terms[k] < 0;
    }
    if (plus && minus && std::abs(sum) <= close) decided = false;
    if (!decided) {
      ++left_out;
      continue;
    }
    Real mixed = 0, divisor = 0, mixed_sizes = 0;
    for (std::size_t k = 0; k < models; ++k) {
      if (sum >= 0 ? terms[k] <= 0 : terms[k] >= 0) continue;
      mixed += terms[k];
      mixed_sizes += sizes[k];
      divisor += settings.weights[k];
    }
    if (!settings.normalize || divisor == 0) divisor = 1;
    const Real expected = origin + settings.lambda * mixed / divisor;
    const Real bound = std::max<Real>(step_at(output, static_cast<double>(expected)),
                                      relative * (std::abs(origin) + settings.lambda * mixed_sizes / std::abs(divisor)));
    if (std::abs(result[i] - expected) <= bound) continue;
    if (++wrong <= 3) {
      ADD_FAILURE() << models << " models to " << name(output) << ", element " << i << " of " << result.size() << ": " << result[i]
                    << " instead of " << static_cast<double>(expected) << " +- " << static_cast<double>(bound);
    }
  }
  EXPECT_EQ(wrong, 0u) << "seed " << kSeed;
  return static_cast<double>(left_out) / static_cast<double>(result.size());
}

struct Mix {
  std::vector<DType> inputs;
  DType output;
  double most_left_out;  ///< of a large tensor: with 16-bit inputs many magnitudes equal the threshold
};
const std::vector<Mix> kMixes = {{{DType::kBF16}, DType::kBF16, 0.6},
                                 {{DType::kF16}, DType::kF16, 0.05},
                                 {{DType::kF32}, DType::kF32, 1e-4},
                                 {{DType::kF64}, DType::kF64, 1e-4},
                                 {{DType::kF64, DType::kF32, DType::kF16, DType::kBF16}, DType::kBF16, 0.05},
                                 {{DType::kF32, DType::kBF16, DType::kF64, DType::kF16}, DType::kF32, 0.05},
                                 {{DType::kBF16, DType::kF64}, DType::kF16, 0.05}};

TEST(Ties, AgreesWithItsDefinition) {
  std::mt19937_64 engine(kSeed);
  const std::vector<double> weights = {1.0, 0.5, 0.75, 2.0, -0.25};
  const std::vector<double> densities = {0.5, 0.2, 0.9, 1.0, 0.3};
  for (const Mix& mix : kMixes) {
    for (const std::size_t size : {std::size_t{1}, std::size_t{15}, std::size_t{16}, std::size_t{17}, std::size_t{63}, std::size_t{64},
                                   std::size_t{65}, kBlock - 1, kBlock + 1, 3 * kBlock + 7}) {
      for (std::size_t models = 1; models <= 5; ++models) {
        if (size > 1000 && models != 2 && !(models == 5 && size == kBlock + 1)) continue;
        if (size == kBlock - 1 && &mix != &kMixes.front()) continue;
        if (size > 2 * kBlock && mix.inputs.size() == 1 && mix.output != DType::kBF16) continue;
        for (const bool other : {false, true}) {
          Settings settings{.normalize = !other, .rescale = other, .lambda = other ? 0.8 : 1.0};
          settings.weights.assign(weights.begin(), weights.begin() + static_cast<std::ptrdiff_t>(models));
          settings.densities.assign(densities.begin(), densities.begin() + static_cast<std::ptrdiff_t>(models));
          std::vector<Array> inputs;
          const std::vector<double> base = normals(engine, size);
          inputs.emplace_back(mix.inputs[0], base);
          for (std::size_t k = 1; k <= models; ++k) inputs.emplace_back(mix.inputs[k % mix.inputs.size()], near(engine, base));
          const double left_out = expect_agrees(ties_case(mix.output, std::move(inputs), settings), settings);
          if (size > 1000) {
            EXPECT_LE(left_out, mix.most_left_out) << name(mix.output) << ", " << models << " models, " << size << " elements";
          }
        }
      }
    }
  }
}

/// One task vector on a base of zeros with weight 1: the output is the trimmed task vector itself.
std::vector<double> trimmed_by_merge(DType dtype, const std::vector<double>& delta, double density, std::uint64_t tensor_key = 1) {
  Case merge_case =
      ties_case(dtype, {Array(dtype, std::vector<double>(delta.size())), Array(dtype, delta)}, {.weights = {1}, .densities = {density}});
  merge_case.task.tensor_key = tensor_key;
  return merge_case.run();
}

std::set<std::size_t> kept_places(const std::vector<double>& trimmed) {
  std::set<std::size_t> result;
  for (std::size_t i = 0; i < trimmed.size(); ++i) {
    if (trimmed[i] != 0) result.insert(i);
  }
  return result;
}

/// A fifth of the magnitudes is 1 with either sign, two fifths lie above, two fifths below.
std::vector<double> fifth_tied(std::size_t count) {
  std::mt19937_64 engine(kSeed);
  std::vector<double> result(count);
  for (double& value : result) {
    const auto draw = engine() % 10;
    const double size = draw < 2   ? 1.0
                        : draw < 6 ? 1.0 + 0.0625 * static_cast<double>(1 + engine() % 15)
                                   : 0.0625 * static_cast<double>(1 + engine() % 15);
    value = engine() % 2 == 0 ? size : -size;
  }
  return result;
}

TEST(Ties, KeepsExactlyTheLargestWithAFifthTiedAtTheThreshold) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32, DType::kF64}) {
    for (const std::size_t count : {std::size_t{65}, std::size_t{1000}, kBlock + 1, 2 * kBlock + 7}) {
      const std::vector<double> delta = fifth_tied(count);
      for (const double density : {0.45, 0.5, 0.55}) {
        const std::vector<double> trimmed = trimmed_by_merge(dtype, delta, density);
        const auto keep = static_cast<std::size_t>(std::floor(density * static_cast<double>(count)));
        EXPECT_EQ(kept_places(trimmed).size(), keep) << name(dtype) << ", " << count << " elements, density " << density;
        std::vector<double> sizes;
        for (const double value : delta) sizes.push_back(std::abs(value));
        std::sort(sizes.begin(), sizes.end(), std::greater<>());
        const double threshold = sizes[keep - 1];
        for (std::size_t i = 0; i < count; ++i) {
          if (std::abs(delta[i]) > threshold) {
            ASSERT_EQ(trimmed[i], delta[i]);
          } else if (std::abs(delta[i]) < threshold) {
            ASSERT_EQ(trimmed[i], 0);
          }
        }
      }
    }
  }
}

TEST(Ties, EqualMagnitudesAreNotChosenByTheirIndices) {
  constexpr std::size_t kCount = 2 * kBlock;
  constexpr std::size_t kParts = 16;
  const std::vector<double> equal(kCount, 0.5);
  for (const DType dtype : {DType::kBF16, DType::kF64}) {
    const std::set<std::size_t> kept = kept_places(trimmed_by_merge(dtype, equal, 0.3));
    ASSERT_EQ(kept.size(), static_cast<std::size_t>(0.3 * kCount));
    std::vector<double> per_part(kParts), per_column(kParts);
    for (const std::size_t place : kept) {
      ++per_part[place * kParts / kCount];
      ++per_column[place % kParts];
    }
    // Six standard deviations of a fair draw.
    const double mean = 0.3 * kCount / kParts;
    const double margin = 6 * std::sqrt(mean * 0.7);
    for (std::size_t part = 0; part < kParts; ++part) {
      EXPECT_NEAR(per_part[part], mean, margin) << name(dtype) << ", part " << part;
      EXPECT_NEAR(per_column[part], mean, margin) << name(dtype) << ", column " << part;
    }
  }
}

TEST(Ties, EqualMagnitudesAreChosenAnewForEachTensorAndModel) {
  constexpr std::size_t kCount = 10000;
  const std::vector<double> equal(kCount, 0.5);
  const std::set<std::size_t> first = kept_places(trimmed_by_merge(DType::kBF16, equal, 0.5, 1));
  const std::set<std::size_t> second = kept_places(trimmed_by_merge(DType::kBF16, equal, 0.5, 2));
  const auto common = [](const auto& a, const auto& b) {
    return std::count_if(a.begin(), a.end(), [&](std::size_t place) { return b.contains(place); });
  };
  EXPECT_NEAR(static_cast<double>(common(first, second)), 2500, 300);

  // Two models of one tensor: each element gets the sum of what both keep.
  const Case both =
      ties_case(DType::kBF16, {Array(DType::kBF16, std::vector<double>(kCount)), Array(DType::kBF16, equal), Array(DType::kBF16, equal)},
                {.normalize = false, .weights = {1, 1}, .densities = {0.5, 0.5}});
  const std::vector<double> result = both.run();
  EXPECT_NEAR(static_cast<double>(std::count(result.begin(), result.end(), 1.0)), 2500, 300);
}

TEST(Ties, DensityAtAndBeyondItsEnds) {
  std::mt19937_64 engine(kSeed);
  const std::vector<double> delta = normals(engine, 1000);
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const Array rounded(dtype, delta);
    for (const double density : {0.0, -0.0, -1.0}) EXPECT_TRUE(kept_places(trimmed_by_merge(dtype, delta, density)).empty()) << density;
    for (const double density : {1.0, 1.5}) EXPECT_EQ(trimmed_by_merge(dtype, delta, density), rounded.values) << density;
    for (const double density : {1e-300, 1e-9, 0.0019})
      EXPECT_EQ(kept_places(trimmed_by_merge(dtype, delta, density)).size(), 1u) << density;
    EXPECT_EQ(kept_places(trimmed_by_merge(dtype, delta, 0.002)).size(), 2u);
    EXPECT_EQ(kept_places(trimmed_by_merge(dtype, delta, std::nextafter(1.0, 0.0))).size(), 999u);
  }
}

TEST(Ties, RescaleRestoresTheSumOfMagnitudes) {
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    const std::vector<double> delta = fifth_tied(kBlock + 1);
    const Case merge_case = ties_case(dtype, {Array(dtype, std::vector<double>(delta.size())), Array(dtype, delta)},
                                      {.rescale = true, .weights = {1}, .densities = {0.5}});
    double before = 0, after = 0;
    for (const double value : delta) before += std::abs(value);
    for (const double value : merge_case.run()) after += std::abs(value);
    EXPECT_NEAR(after / before, 1, 1e-6) << name(dtype);
  }
}

TEST(Ties, RescaleLeavesATaskVectorOfAlmostNothingAlone) {
  const std::vector<double> delta = {1e-8, -2e-8, 3e-8, 1e-9};
  const Case merge_case = ties_case(DType::kF64, {Array(DType::kF64, std::vector<double>(4)), Array(DType::kF64, delta)},
                                    {.rescale = true, .weights = {1}, .densities = {0.5}});
  EXPECT_EQ(merge_case.run(), (std::vector<double>{0, -2e-8, 3e-8, 0}));
}

TEST(Ties, ABaseAloneIsItself) {
  const std::vector<double> values = {1, -2, 0.5};
  EXPECT_EQ(ties_case(DType::kF32, {Array(DType::kF32, values)}, {}).run(), values);
}

}  // namespace
}  // namespace moeweld::merge
