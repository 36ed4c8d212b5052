#include "merge/kernels/sign_election.h"

#include "hwy/aligned_allocator.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "merge/kernels/sign_election.cpp"
#include "hwy/foreach_target.h"  // must precede the -inl headers
#include "hwy/highway.h"
#include "merge/kernels/keep_rule-inl.h"
#include "merge/kernels/vector_codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::merge {
namespace HWY_NAMESPACE {

template <class Source, class Sink, typename T>
void Elect(const SignElection<T>& election, std::size_t num, void* output) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const Sink sink(output);
  const Source base_source(election.base);
  const std::size_t num_terms = election.terms.size();
  const auto storage = hwy::AllocateAligned<T>((num_terms + 1) * lanes);
  T* weighted = storage.get();
  const ElectionTerm<T>* terms = election.terms.data();
  const auto zero = hn::Zero(d);
  const auto one = hn::Set(d, T{1});
  const auto sign_bit = hn::SignBit(d);
  const auto lambda = hn::Set(d, election.lambda);
  for (std::size_t i = 0; i < num; i += lanes) {
    const auto base = base_source.Load(d, i);
    const auto first_low = election.first_low + static_cast<std::uint32_t>(i);
    auto sum = zero;
    for (std::size_t k = 0; k < num_terms; ++k) {
      const auto delta = hn::Sub(Source(election.inputs[k]).Load(d, i), base);
      const auto term = hn::Mul(hn::Set(d, terms[k].coefficient), KeepOrZero(d, terms[k].rule, delta, first_low));
      hn::Store(term, d, weighted + k * lanes);
      sum = hn::Add(sum, term);
    }
    // Turns the elected sign into plus.
    const auto flip = hn::IfThenElse(hn::Ge(sum, zero), zero, sign_bit);
    auto mixed = zero;
    auto divisor = zero;
    for (std::size_t k = 0; k < num_terms; ++k) {
      const auto term = hn::Load(d, weighted + k * lanes);
      // Not "greater": NaN takes part, so that it reaches the output.
      const auto matches = hn::Not(hn::Le(hn::Xor(term, flip), zero));
      mixed = hn::Add(mixed, hn::IfThenElseZero(matches, term));
      divisor = hn::Add(divisor, hn::IfThenElseZero(matches, hn::Set(d, terms[k].weight)));
    }
    if (election.normalize) mixed = hn::Div(mixed, hn::IfThenElse(hn::Eq(divisor, zero), one, divisor));
    sink.Store(d, hn::Add(hn::Mul(mixed, lambda), base), i);
  }
}

void ElectFloats(const SignElection<float>& election, std::size_t num, float* output) {
  Elect<PlainSource<float>, PlainSink<float>>(election, num, output);
}
void ElectDoubles(const SignElection<double>& election, std::size_t num, double* output) {
  Elect<PlainSource<double>, PlainSink<double>>(election, num, output);
}
void ElectBf16(const SignElection<float>& election, std::size_t num, std::uint16_t* output) {
  Elect<Bf16Source, Bf16Sink>(election, num, output);
}

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moeweld::merge {

HWY_EXPORT(ElectFloats);
HWY_EXPORT(ElectDoubles);
HWY_EXPORT(ElectBf16);

void elect_and_combine(const SignElection<float>& election, std::size_t num, float* output) {
  HWY_DYNAMIC_DISPATCH(ElectFloats)(election, num, output);
}
void elect_and_combine(const SignElection<double>& election, std::size_t num, double* output) {
  HWY_DYNAMIC_DISPATCH(ElectDoubles)(election, num, output);
}
void elect_and_combine_bf16(const SignElection<float>& election, std::size_t num, std::uint16_t* output) {
  HWY_DYNAMIC_DISPATCH(ElectBf16)(election, num, output);
}

}  // namespace moeweld::merge
#endif
