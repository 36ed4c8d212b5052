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

template <class Source, bool kHasBase, class D>
HWY_INLINE hn::VFromD<D> Term(D d, const void* term, std::size_t i, hn::VFromD<D> base, hn::TFromD<D> weight) {
  auto value = Source(term).Load(d, i);
  if constexpr (kHasBase) value = hn::Sub(value, base);
  return hn::Mul(hn::Set(d, weight), value);
}

// kTerms 0: any number.
template <class Source, class Sink, bool kHasBase, std::size_t kTerms>
void Combine(const LinearCombination& combination, std::size_t num, void* output) {
  const hn::ScalableTag<double> d;
  const Sink sink(output);
  const Source base_source(combination.base);
  const void* const* terms = combination.terms.data();
  const double* weights = combination.weights.data();
  const std::size_t num_terms = kTerms != 0 ? kTerms : combination.terms.size();
  // Dividing by a power of two and multiplying by its reciprocal round the same real number.
  int exponent = 0;
  const bool reciprocal = std::frexp(combination.divisor, &exponent) == 0.5 && std::abs(exponent) < 100;
  const bool divide = combination.divisor != 1.0 && !reciprocal;
  const auto divisor = hn::Set(d, combination.divisor);
  const auto factor = hn::Set(d, reciprocal ? 1.0 / combination.divisor : 1.0);
  const auto lambda = hn::Set(d, combination.lambda);
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    auto base = hn::Zero(d);
    if constexpr (kHasBase) base = base_source.Load(d, i);
    auto sum = Term<Source, kHasBase>(d, terms[0], i, base, weights[0]);
    for (std::size_t k = 1; k < num_terms; ++k) sum = hn::Add(sum, Term<Source, kHasBase>(d, terms[k], i, base, weights[k]));
    sum = divide ? hn::Div(sum, divisor) : hn::Mul(sum, factor);
    if constexpr (kHasBase) sum = hn::Add(hn::Mul(sum, lambda), base);
    sink.Store(d, sum, i);
  }
}

template <class Source, class Sink, bool kHasBase>
void CombineAnyNumber(const LinearCombination& combination, std::size_t num, void* output) {
  switch (combination.terms.size()) {
    case 1:
      return Combine<Source, Sink, kHasBase, 1>(combination, num, output);
    case 2:
      return Combine<Source, Sink, kHasBase, 2>(combination, num, output);
    case 3:
      return Combine<Source, Sink, kHasBase, 3>(combination, num, output);
    default:
      return Combine<Source, Sink, kHasBase, 0>(combination, num, output);
  }
}

void CombineDoubles(const LinearCombination& combination, std::size_t num, double* output) {
  if (combination.base != nullptr) return Combine<PlainSource<double>, PlainSink<double>, true, 0>(combination, num, output);
  Combine<PlainSource<double>, PlainSink<double>, false, 0>(combination, num, output);
}

void CombineBf16(const LinearCombination& combination, std::size_t num, std::uint16_t* output) {
  if (combination.base != nullptr) return CombineAnyNumber<Bf16Source, Bf16Sink, true>(combination, num, output);
  CombineAnyNumber<Bf16Source, Bf16Sink, false>(combination, num, output);
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
