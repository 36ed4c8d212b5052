#include "merge/kernels/linear_combination.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "merge/kernels/linear_combination.cpp"
#include "hwy/foreach_target.h"  // must precede the -inl header
#include "hwy/highway.h"
#include "merge/kernels/vector_codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::merge {
namespace HWY_NAMESPACE {

// x / divisor, rounded once.
template <class D>
struct Scale {
  using V = hn::VFromD<D>;
  V divisor;
  V factor;
  bool is_one;
  bool divide;
  HWY_INLINE explicit Scale(double by) : divisor(hn::Set(D(), by)), is_one(by == 1.0) {
    // Dividing by a power of two and multiplying by its reciprocal round the same real number.
    int exponent = 0;
    const bool has_reciprocal = std::frexp(by, &exponent) == 0.5 && std::abs(exponent) < 100;
    factor = hn::Set(D(), has_reciprocal ? 1.0 / by : 1.0);
    divide = !has_reciprocal;
  }
  HWY_INLINE V Apply(D, V value) const {
    if (is_one) return value;
    return divide ? hn::Div(value, divisor) : hn::Mul(value, factor);
  }
};

template <bool kHasBase>
void CombineTiles(const LinearCombination& combination, std::size_t num, double* output) {
  const hn::ScalableTag<double> d;
  const Scale<decltype(d)> scale(combination.divisor);
  const auto lambda = hn::Set(d, combination.lambda);
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    auto base = hn::Zero(d);
    if constexpr (kHasBase) base = hn::LoadU(d, static_cast<const double*>(combination.base) + i);
    auto sum = hn::Zero(d);
    for (std::size_t k = 0; k < combination.terms.size(); ++k) {
      auto value = hn::LoadU(d, static_cast<const double*>(combination.terms[k]) + i);
      if constexpr (kHasBase) value = hn::Sub(value, base);
      const auto product = hn::Mul(hn::Set(d, combination.weights[k]), value);
      sum = k == 0 ? product : hn::Add(sum, product);
    }
    sum = scale.Apply(d, sum);
    if constexpr (kHasBase) sum = hn::Add(hn::Mul(sum, lambda), base);
    hn::StoreU(sum, d, output + i);
  }
}

// As CombineTiles for BF16. Two neighbours share a 32-bit lane in memory: the lower ones and the upper ones are computed as two vectors, so
// no operand has to be widened from 16 bits and no result narrowed to them.
template <bool kHasBase, std::size_t kTerms>
void CombinePairs(const LinearCombination& combination, std::size_t num, std::uint16_t* output) {
  const hn::ScalableTag<double> d;
  const FloatsFor<decltype(d)> df;
  using V = hn::VFromD<decltype(d)>;
  const void* const* terms = combination.terms.data();
  const double* weights = combination.weights.data();
  const std::size_t num_terms = kTerms != 0 ? kTerms : combination.terms.size();
  const Scale<decltype(d)> scale(combination.divisor);
  const auto lambda = hn::Set(d, combination.lambda);
  const auto halves_of = [&](const void* from, std::size_t i, V* halves) HWY_ATTR {
    hn::VFromD<decltype(df)> floats[2];
    LoadBf16Halves(df, static_cast<const std::uint16_t*>(from) + i, floats);
    for (std::size_t h = 0; h < 2; ++h) halves[h] = hn::PromoteTo(d, floats[h]);
  };
  for (std::size_t i = 0; i < num; i += 2 * hn::Lanes(d)) {
    V base[2];
    if constexpr (kHasBase) halves_of(combination.base, i, base);
    V sum[2] = {hn::Zero(d), hn::Zero(d)};
    for (std::size_t k = 0; k < num_terms; ++k) {
      V values[2];
      halves_of(terms[k], i, values);
      const auto weight = hn::Set(d, weights[k]);
      for (std::size_t h = 0; h < 2; ++h) {
        if constexpr (kHasBase) values[h] = hn::Sub(values[h], base[h]);
        const V product = hn::Mul(weight, values[h]);
        sum[h] = k == 0 ? product : hn::Add(sum[h], product);
      }
    }
    for (std::size_t h = 0; h < 2; ++h) {
      sum[h] = scale.Apply(d, sum[h]);
      if constexpr (kHasBase) sum[h] = hn::Add(hn::Mul(sum[h], lambda), base[h]);
    }
    StoreBf16Halves(df, NarrowToFloats(df, sum[0]), NarrowToFloats(df, sum[1]), output + i);
  }
}

template <bool kHasBase>
void CombinePairsOfAnyNumber(const LinearCombination& combination, std::size_t num, std::uint16_t* output) {
  switch (combination.terms.size()) {
    case 1:
      return CombinePairs<kHasBase, 1>(combination, num, output);
    case 2:
      return CombinePairs<kHasBase, 2>(combination, num, output);
    case 3:
      return CombinePairs<kHasBase, 3>(combination, num, output);
    default:
      return CombinePairs<kHasBase, 0>(combination, num, output);
  }
}

void CombineDoubles(const LinearCombination& combination, std::size_t num, double* output) {
  if (combination.base != nullptr) return CombineTiles<true>(combination, num, output);
  CombineTiles<false>(combination, num, output);
}

void CombineBf16(const LinearCombination& combination, std::size_t num, std::uint16_t* output) {
  if (combination.base != nullptr) return CombinePairsOfAnyNumber<true>(combination, num, output);
  CombinePairsOfAnyNumber<false>(combination, num, output);
}

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moeweld::merge {

HWY_EXPORT(CombineDoubles);
HWY_EXPORT(CombineBf16);

void combine_linearly(const LinearCombination& combination, std::size_t num, double* output) {
  HWY_DYNAMIC_DISPATCH(CombineDoubles)(combination, num, output);
}
void combine_linearly_bf16(const LinearCombination& combination, std::size_t num, std::uint16_t* output) {
  HWY_DYNAMIC_DISPATCH(CombineBf16)(combination, num, output);
}

}  // namespace moeweld::merge
#endif
