/// Every method against its definition, written out in long double as plainly as it can be.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "unit/merge/arrays.h"

namespace moeweld::merge {
namespace {

using Real = long double;

constexpr std::uint64_t kSeed = 20260101;
constexpr std::size_t kBlock = kBlockElements;
const std::vector<std::size_t> kSizes = {1, 15, 16, 17, 63, 64, 65, kBlock - 1, kBlock + 1, 3 * kBlock + 7};
constexpr std::size_t kLarge = 1000;

/// Dtypes of inputs, repeated for as many inputs as there are, and of the output.
struct Mix {
  std::vector<DType> inputs;
  DType output;
};
const std::vector<Mix> kMixes = {{{DType::kBF16}, DType::kBF16},
                                 {{DType::kBF16}, DType::kF32},
                                 {{DType::kF16}, DType::kF16},
                                 {{DType::kF32}, DType::kF32},
                                 {{DType::kF64}, DType::kF64},
                                 {{DType::kF64, DType::kF32, DType::kF16, DType::kBF16}, DType::kBF16},
                                 {{DType::kBF16, DType::kF16, DType::kF32, DType::kF64}, DType::kF16},
                                 {{DType::kF32, DType::kBF16, DType::kF64, DType::kF16}, DType::kF32},
                                 {{DType::kF16, DType::kF64, DType::kBF16, DType::kF32}, DType::kF64}};

/// One element by definition: its value and the sum of the sizes of the terms it adds up.
struct Expected {
  Real value = 0;
  Real terms = 0;
  bool decided = true;  ///< false: a sign or a threshold lies too close to its border
};

Real relative_bound(DType output) { return std::ldexp(Real{1}, computes_in_float64(output) ? -50 : -21); }

/// Number of elements that were left out.
template <typename Definition>
std::size_t expect_agrees(const Case& merge_case, const std::vector<double>& result, Definition&& definition) {
  const DType output = merge_case.task.output_dtype;
  std::size_t left_out = 0;
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < result.size(); ++i) {
    const Expected expected = definition(i);
    if (!expected.decided) {
      ++left_out;
      continue;
    }
    const Real bound = std::max<Real>(step_at(output, static_cast<double>(expected.value)), relative_bound(output) * expected.terms);
    if (std::abs(result[i] - expected.value) <= bound) continue;
    if (++wrong <= 3) {
      ADD_FAILURE() << merge_case.method->name << " of " << merge_case.arrays.size() << " inputs to " << name(output) << ", element " << i
                    << " of " << result.size() << ": " << result[i] << " instead of " << static_cast<double>(expected.value) << " +- "
                    << static_cast<double>(bound);
    }
  }
  EXPECT_EQ(wrong, 0u) << "seed " << kSeed;
  return left_out;
}

std::vector<Array> models(std::mt19937_64& engine, const Mix& mix, std::size_t count, std::size_t size, double deviation = 0.004) {
  std::vector<Array> result;
  const std::vector<double> first = normals(engine, size);
  for (std::size_t i = 0; i < count; ++i)
    result.emplace_back(mix.inputs[i % mix.inputs.size()], i == 0 ? first : near(engine, first, deviation));
  return result;
}

/// Large tensors with two counts of inputs only, and one that falls short of a block in one mix, to keep the test short.
template <typename Work>
void for_all_cases(std::size_t fewest, std::size_t most, Work&& work) {
  std::mt19937_64 engine(kSeed);
  for (const Mix& mix : kMixes) {
    for (const std::size_t size : kSizes) {
      for (std::size_t count = fewest; count <= most; ++count) {
        if (size > 2 * kBlock && mix.output != DType::kBF16) continue;
        if (size == kBlock - 1 && &mix != &kMixes.front()) continue;
        if (size > kLarge && count != std::max<std::size_t>(2, fewest) && !(count == most && size < 2 * kBlock)) continue;
        work(engine, mix, count, size);
      }
    }
  }
}

constexpr double kWeights[] = {1.0, 0.3, -0.25, 0.7, 2.0, 0.4};

std::vector<Parameters> weights(std::size_t count) {
  std::vector<Parameters> result;
  for (std::size_t i = 0; i < count; ++i) result.push_back({{"weight", kWeights[i]}});
  return result;
}

TEST(Linear, AgreesWithItsDefinition) {
  for_all_cases(1, 5, [](auto& engine, const Mix& mix, std::size_t count, std::size_t size) {
    for (const bool normalize : {true, false}) {
      const Case merge_case("linear", mix.output, models(engine, mix, count, size), -1, {{"normalize", normalize}}, weights(count));
      Real sum = 0;
      for (std::size_t k = 0; k < count; ++k) sum += kWeights[k];
      expect_agrees(merge_case, merge_case.run(), [&](std::size_t i) {
        Expected expected;
        for (std::size_t k = 0; k < count; ++k) {
          const Real term = kWeights[k] * static_cast<Real>(merge_case.arrays[k].values[i]) / (normalize ? sum : 1);
          expected.value += term;
          expected.terms += std::abs(term);
        }
        return expected;
      });
    }
  });
}

TEST(Linear, EqualWeightsRoundTheExactMean) {
  std::mt19937_64 engine(kSeed);
  for (const std::size_t count : {2u, 3u, 4u}) {
    const Case merge_case("linear", DType::kBF16, models(engine, kMixes[0], count, 65536), -1, {},
                          std::vector<Parameters>(count, {{"weight", 1}}));
    const std::vector<double> result = merge_case.run();
    for (std::size_t i = 0; i < result.size(); ++i) {
      double sum = 0;  // exact: a few numbers of 8 bits each
      for (const Array& array : merge_case.arrays) sum += array.values[i];
      // Sums of far apart numbers need more than float32's 24 bits.
      if (static_cast<double>(static_cast<float>(sum)) != sum) continue;
      ASSERT_EQ(result[i], round_to(DType::kBF16, sum / static_cast<double>(count)))
          << count << " models, element " << i << ", seed " << kSeed;
    }
  }
}

TEST(Linear, RefusesWeightsThatAddUpToZero) {
  const Array one(DType::kF32, {1, 2});
  const std::vector<Parameters> opposite = {{{"weight", 0.5}}, {{"weight", -0.5}}};
  const Case normalized("linear", DType::kF32, {one, one}, -1, {}, opposite);
  ASSERT_EQ(normalized.method->check(normalized.task).size(), 1u);
  EXPECT_NE(normalized.method->check(normalized.task)[0].find("normalize: false"), std::string::npos);
  const Case plain("linear", DType::kF32, {one, one}, -1, {{"normalize", 0}}, opposite);
  EXPECT_TRUE(plain.method->check(plain.task).empty());
  const Case usual("linear", DType::kF32, {one, one}, -1, {}, weights(2));
  EXPECT_TRUE(usual.method->check(usual.task).empty());
}

/// Coefficients of the base and of the other, by the definition.
std::pair<Real, Real> slerp_coefficients(const std::vector<double>& base, const std::vector<double>& other, double t) {
  Real aa = 0, ab = 0, bb = 0;
  for (std::size_t i = 0; i < base.size(); ++i) {
    aa += static_cast<Real>(base[i]) * base[i];
    ab += static_cast<Real>(base[i]) * other[i];
    bb += static_cast<Real>(other[i]) * other[i];
  }
  const auto norm = [](Real square) { return std::sqrt(square) > 1e-8L ? std::sqrt(square) : Real{1}; };
  const Real cosine = ab / (norm(aa) * norm(bb));
  if (std::abs(cosine) > 0.9995L) return {1 - static_cast<Real>(t), t};
  const Real angle = std::acos(cosine);
  return {std::sin((1 - t) * angle) / std::sin(angle), std::sin(t * angle) / std::sin(angle)};
}

void expect_slerp(const Case& merge_case, double t) {
  const auto& base = merge_case.arrays[static_cast<std::size_t>(merge_case.task.base_index)].values;
  const auto& other = merge_case.arrays[static_cast<std::size_t>(1 - merge_case.task.base_index)].values;
  const auto [first, second] = slerp_coefficients(base, other, t);
  expect_agrees(merge_case, merge_case.run(), [&, first = first, second = second](std::size_t i) {
    return Expected{first * base[i] + second * other[i], std::abs(first * base[i]) + std::abs(second * other[i])};
  });
}

/// What the first phase of a tensor promises, and whether a second one follows it.
std::pair<bool, bool> promised_only_and_followed(const Case& merge_case) {
  const MethodRow& method = *merge_case.method;
  const PhaseShape phase = method.next_phase(merge_case.task, {}).value();
  std::vector<PhasePartial> partials(1);
  measure_blocks(method, merge_case.task, {}, phase, merge_case.whole(), partials[0]);
  Decisions decisions;
  decide_phase(method, merge_case.task, phase, std::move(partials), decisions);
  return {phase.is_only, method.next_phase(merge_case.task, decisions).has_value()};
}

TEST(Phases, NothingFollowsTheOnlyOne) {
  std::mt19937_64 engine(kSeed);
  const Case slerp("slerp", DType::kBF16, models(engine, kMixes[0], 2, 3 * kBlock, 0.03), 0, {{"t", 0.3}}, {});
  EXPECT_EQ(promised_only_and_followed(slerp), (std::pair{true, false}));
  const Case ties("ties", DType::kBF16, models(engine, kMixes[0], 3, 3 * kBlock), 0, {},
                  {{}, {{"weight", 1}, {"density", 0.5}}, {{"weight", 1}, {"density", 0.5}}});
  EXPECT_EQ(promised_only_and_followed(ties), (std::pair{false, true}));
}

TEST(Slerp, AgreesWithItsDefinition) {
  for_all_cases(2, 2, [](auto& engine, const Mix& mix, std::size_t, std::size_t size) {
    for (const int base : {0, 1}) {
      // Far apart, so that most sizes take the arc.
      expect_slerp(Case("slerp", mix.output, models(engine, mix, 2, size, 0.03), base, {{"t", 0.3}}, {}), 0.3);
    }
  });
}

TEST(Slerp, AgreesWithItsDefinitionAtEveryAngle) {
  constexpr std::size_t kCount = 4097;
  std::mt19937_64 engine(kSeed);
  std::vector<double> a = normals(engine, kCount);
  std::vector<double> b = normals(engine, kCount);
  const Real aa = std::inner_product(a.begin(), a.end(), a.begin(), Real{0});
  const Real ab = std::inner_product(a.begin(), a.end(), b.begin(), Real{0});
  for (std::size_t i = 0; i < kCount; ++i) b[i] = static_cast<double>(b[i] - ab / aa * a[i]);
  const Real ratio = std::sqrt(aa / std::inner_product(b.begin(), b.end(), b.begin(), Real{0}));
  const double pi = std::acos(-1.0);
  for (const double angle :
       {1e-6, 1e-3, 0.0315, 0.0317, 0.05, 0.3, 1.0, pi / 2, 2.0, 3.0, pi - 0.0317, pi - 0.0315, pi - 1e-3, pi - 1e-6}) {
    std::vector<double> turned(kCount);
    for (std::size_t i = 0; i < kCount; ++i)
      turned[i] = static_cast<double>(std::cos(Real{angle}) * a[i] + std::sin(Real{angle}) * b[i] * ratio);
    for (const double t : {0.0, 0.25, 0.5, 1.0}) {
      SCOPED_TRACE(testing::Message() << "angle " << angle << ", t " << t);
      expect_slerp(Case("slerp", DType::kF32, {Array(DType::kF64, a), Array(DType::kF64, turned)}, 0, {{"t", t}}, {}), t);
      expect_slerp(Case("slerp", DType::kBF16, {Array(DType::kF32, a), Array(DType::kF32, turned)}, 0, {{"t", t}}, {}), t);
    }
  }
}

TEST(Slerp, ParallelInputsFallBackToLinear) {
  std::mt19937_64 engine(kSeed);
  const std::vector<double> a = normals(engine, 100);
  for (const double factor : {2.0, -2.0}) {
    std::vector<double> b = a;
    for (double& value : b) value *= factor;
    const Case merge_case("slerp", DType::kF64, {Array(DType::kF64, a), Array(DType::kF64, b)}, 0, {{"t", 0.25}}, {});
    const std::vector<double> result = merge_case.run();
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_DOUBLE_EQ(result[i], a[i] * (0.75 + 0.25 * factor));
  }
}

TEST(Slerp, ATensorOfZerosIsOrthogonalToAll) {
  // Its norm is left unscaled, so the cosine is 0 and both coefficients are sin(pi/4).
  const Case merge_case("slerp", DType::kF64, {Array(DType::kF64, {0, 0, 0}), Array(DType::kF64, {1, -2, 3})}, 0, {{"t", 0.5}}, {});
  const std::vector<double> result = merge_case.run();
  for (std::size_t i = 0; i < 3; ++i) EXPECT_DOUBLE_EQ(result[i], merge_case.arrays[1].values[i] * std::sqrt(0.5));
}

TEST(TaskArithmetic, AgreesWithItsDefinition) {
  for_all_cases(1, 5, [](auto& engine, const Mix& mix, std::size_t count, std::size_t size) {
    for (const bool normalize : {true, false}) {
      const std::size_t base = count > 1 ? 1 : 0;
      const double lambda = 0.9;
      const Case merge_case("task_arithmetic", mix.output, models(engine, mix, count, size), static_cast<int>(base),
                            {{"normalize", normalize}, {"lambda", lambda}}, weights(count));
      Real sum = 0;
      for (std::size_t k = 0; k < count; ++k) sum += k == base ? 0 : kWeights[k];
      expect_agrees(merge_case, merge_case.run(), [&](std::size_t i) {
        const Real origin = merge_case.arrays[base].values[i];
        Expected expected{origin, std::abs(origin)};
        for (std::size_t k = 0; k < count; ++k) {
          if (k == base) continue;
          const Real factor = lambda * kWeights[k] / (normalize ? sum : 1);
          const Real value = merge_case.arrays[k].values[i];
          expected.value += factor * (value - origin);
          expected.terms += std::abs(factor) * (std::abs(value) + std::abs(origin));
        }
        return expected;
      });
    }
  });
}

TEST(Passthrough, ScalesByItsFactor) {
  for_all_cases(1, 1, [](auto& engine, const Mix& mix, std::size_t, std::size_t size) {
    const Case merge_case("passthrough", mix.output, models(engine, mix, 1, size), -1, {}, {{{"scale", 0.3}}});
    expect_agrees(merge_case, merge_case.run(), [&](std::size_t i) {
      const Real value = 0.3 * static_cast<Real>(merge_case.arrays[0].values[i]);
      return Expected{value, std::abs(value)};
    });
  });
}

TEST(Passthrough, WithoutScaleRoundsOnceOrNotAtAll) {
  std::mt19937_64 engine(kSeed);
  for (const DType from : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16}) {
    for (const DType to : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16}) {
      // From float64 the way to 16 bits leads over float32.
      if (from == DType::kF64 && !computes_in_float64(to)) continue;
      const Case merge_case("passthrough", to, {Array(from, normals(engine, 1000))}, -1, {}, {});
      const std::vector<double> result = merge_case.run();
      for (std::size_t i = 0; i < result.size(); ++i) {
        ASSERT_EQ(result[i], round_to(to, merge_case.arrays[0].values[i])) << name(from) << " to " << name(to) << ", element " << i;
      }
    }
  }
}

}  // namespace
}  // namespace moeweld::merge
