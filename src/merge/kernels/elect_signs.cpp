#include "merge/kernels/elect_signs.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "merge/kernels/elect_signs.cpp"
#include "hwy/foreach_target.h"  // must precede the -inl headers
#include "hwy/highway.h"
#include "merge/kernels/keep_rule-inl.h"
#include "merge/kernels/vector_codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::merge {
namespace HWY_NAMESPACE {

// kTerms 0: any number, recomputed in the second round instead of kept in registers.
template <class Source, class Sink, std::size_t kTerms, bool kHashed, typename T>
void ElectAs(const SignElection<T>& election, std::size_t num, void* output) {
  const hn::ScalableTag<T> d;
  using V = hn::VFromD<decltype(d)>;
  using Rule = AtOrAbove<decltype(d)>;
  const Sink sink(output);
  const Source base_source(election.base);
  const std::size_t num_terms = kTerms != 0 ? kTerms : election.terms.size();
  const bool scaled = !election.scales.empty();
  const bool normalize = election.normalize;
  const auto zero = hn::Zero(d);
  const auto one = hn::Set(d, T{1});
  const auto lambda = hn::Set(d, election.lambda);
  const auto sign_bit = hn::SignBit(d);
  const auto rule_of = [&](std::size_t k)
                           HWY_ATTR { return Rule(election.rules[k].magnitude, election.rules[k].hash, election.rules[k].factor); };
  // In registers, where their number is known.
  constexpr std::size_t kKnown = kTerms != 0 ? kTerms : 1;
  const void* pointers[kKnown];
  V weights[kKnown];
  V scales[kKnown];
  Rule rules[3] = {rule_of(0), rule_of(kKnown > 1 ? 1 : 0), rule_of(kKnown > 2 ? 2 : 0)};
  static_assert(kKnown <= 3);
  for (std::size_t k = 0; k < kKnown; ++k) {
    pointers[k] = election.terms[k];
    weights[k] = hn::Set(d, election.weights[k]);
    scales[k] = scaled ? hn::Set(d, election.scales[k]) : one;
  }
  MixedIndices<decltype(d)> indices(election.first_low, election.index_salt);
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    const V base = base_source.Load(d, i);
    auto mixed_indices = hn::Zero(hn::Rebind<std::uint32_t, decltype(d)>());
    if constexpr (kHashed) mixed_indices = indices.Next();
    const auto term = [&](std::size_t k) HWY_ATTR {
      const bool known = kTerms != 0;
      const V delta = hn::Sub(Source(known ? pointers[k] : election.terms[k]).Load(d, i), base);
      const auto key = MagnitudeKey(d, delta);
      const Rule rule = known ? rules[k] : rule_of(k);
      const auto keeps = [&]() HWY_ATTR {
        if constexpr (kHashed) return rule.Test(key, mixed_indices);
        return rule.Test(key);
      }();
      V value = hn::IfThenElseZero(hn::RebindMask(d, keeps), delta);
      if (scaled) value = hn::Mul(value, known ? scales[k] : hn::Set(d, election.scales[k]));
      return hn::Mul(value, known ? weights[k] : hn::Set(d, election.weights[k]));
    };
    V kept[kKnown];
    V sum = term(0);
    if constexpr (kTerms != 0) kept[0] = sum;
    for (std::size_t k = 1; k < num_terms; ++k) {
      const V value = term(k);
      if constexpr (kTerms != 0) kept[k] = value;
      sum = hn::Add(sum, value);
    }
    // Terms of the elected sign become positive. A comparison with NaN is false, so NaN is never left out.
    const auto flip = hn::IfThenZeroElse(hn::Ge(sum, zero), sign_bit);
    V mixed = zero;
    V divisor = zero;
    for (std::size_t k = 0; k < num_terms; ++k) {
      V value;
      if constexpr (kTerms != 0) {
        value = kept[k];
      } else {
        value = term(k);
      }
      const auto left_out = hn::Le(hn::Xor(value, flip), zero);
      mixed = hn::Add(mixed, hn::IfThenZeroElse(left_out, value));
      divisor = hn::Add(divisor, hn::IfThenZeroElse(left_out, kTerms != 0 ? weights[k] : hn::Set(d, election.weights[k])));
    }
    if (normalize) mixed = hn::Div(mixed, hn::IfThenElse(hn::Eq(divisor, zero), one, divisor));
    sink.Store(d, hn::Add(base, hn::Mul(mixed, lambda)), i);
  }
}

template <class Source, class Sink, std::size_t kTerms, typename T>
void Elect(const SignElection<T>& election, std::size_t num, void* output) {
  bool hashed = false;
  for (const KeepRule& rule : election.rules) hashed = hashed || rule.hash != 0;
  if (hashed) return ElectAs<Source, Sink, kTerms, true>(election, num, output);
  ElectAs<Source, Sink, kTerms, false>(election, num, output);
}

// As ElectAs, with two bounds per term: at or above `high` an element stays, below `low` it goes, and in between it goes for now and is
// listed.
template <std::size_t kTerms>
void ElectBetween(const SignElection<float>& election, std::span<const KeepRule> lows, std::size_t num, std::uint16_t* output,
                  ElectionDoubts& doubts) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::RebindToUnsigned<decltype(d)> du;
  using V = hn::VFromD<decltype(d)>;
  using Rule = AtOrAbove<decltype(d)>;
  const Bf16Sink sink(output);
  const Bf16Source bases(election.base);
  const bool normalize = election.normalize;
  const auto zero = hn::Zero(d);
  const auto one = hn::Set(d, 1.0F);
  const auto lambda = hn::Set(d, election.lambda);
  const auto sign_bit = hn::SignBit(d);
  const auto magnitude_bits = hn::Set(di, FloatBits<float>::kMagnitude);
  const auto at = [](std::size_t k) { return k < kTerms ? k : 0; };
  const auto rule = [](const KeepRule& bound) HWY_ATTR { return Rule(bound.magnitude, bound.hash, bound.factor); };
  static_assert(kTerms <= 4);
  const Rule high[4] = {rule(election.rules[0]), rule(election.rules[at(1)]), rule(election.rules[at(2)]), rule(election.rules[at(3)])};
  const Rule low[4] = {rule(lows[0]), rule(lows[at(1)]), rule(lows[at(2)]), rule(lows[at(3)])};
  V weights[kTerms];
  std::size_t above[kTerms] = {};
  for (std::size_t k = 0; k < kTerms; ++k) weights[k] = hn::Set(d, election.weights[k]);
  MixedIndices<decltype(d)> indices(election.first_low, election.index_salt);
  std::size_t found = doubts.num;
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    const V base = bases.Load(d, i);
    const auto mixed_indices = indices.Next();
    V values[kTerms];
    auto doubtful = hn::Gt(hn::Zero(di), hn::Zero(di));
    V sum = zero;
    for (std::size_t k = 0; k < kTerms; ++k) {
      const V delta = hn::Sub(Bf16Source(election.terms[k]).Load(d, i), base);
      // No bound is above infinity, so it does not matter in which order NaNs are.
      const auto key = hn::And(hn::BitCast(di, delta), magnitude_bits);
      const auto stays = high[k].Test(key, mixed_indices);
      above[k] += hn::CountTrue(di, stays);
      doubtful = hn::Or(doubtful, hn::AndNot(stays, low[k].Test(key, mixed_indices)));
      values[k] = hn::Mul(hn::IfThenElseZero(hn::RebindMask(d, stays), delta), weights[k]);
      sum = k == 0 ? values[k] : hn::Add(sum, values[k]);
    }
    const auto flip = hn::IfThenZeroElse(hn::Ge(sum, zero), sign_bit);
    V mixed = zero;
    V divisor = zero;
    for (std::size_t k = 0; k < kTerms; ++k) {
      const auto left_out = hn::Le(hn::Xor(values[k], flip), zero);
      mixed = hn::Add(mixed, hn::IfThenZeroElse(left_out, values[k]));
      divisor = hn::Add(divisor, hn::IfThenZeroElse(left_out, weights[k]));
    }
    if (normalize) mixed = hn::Div(mixed, hn::IfThenElse(hn::Eq(divisor, zero), one, divisor));
    sink.Store(d, hn::Add(base, hn::Mul(mixed, lambda)), i);
    if (hn::AllFalse(di, doubtful)) continue;
    const auto places = hn::RebindMask(du, doubtful);
    const auto lanes = hn::RebindMask(d, doubtful);
    hn::StoreU(hn::Compress(hn::Iota(du, static_cast<std::uint32_t>(i)), places), du, doubts.places + found);
    hn::StoreU(hn::Compress(base, lanes), d, doubts.base + found);
    for (std::size_t k = 0; k < kTerms; ++k)
      hn::StoreU(hn::Compress(Bf16Source(election.terms[k]).Load(d, i), lanes), d, doubts.terms[k] + found);
    found += hn::CountTrue(di, doubtful);
  }
  doubts.num = found;
  for (std::size_t k = 0; k < kTerms; ++k) doubts.above[k] += above[k];
}
void ElectBetweenBf16(const SignElection<float>& election, std::span<const KeepRule> lows, std::size_t num, std::uint16_t* output,
                      ElectionDoubts& doubts) {
  switch (election.terms.size()) {
    case 1:
      return ElectBetween<1>(election, lows, num, output, doubts);
    case 2:
      return ElectBetween<2>(election, lows, num, output, doubts);
    case 3:
      return ElectBetween<3>(election, lows, num, output, doubts);
    default:
      return ElectBetween<4>(election, lows, num, output, doubts);
  }
}

void ElectFloats(const SignElection<float>& election, std::size_t num, float* output) {
  Elect<PlainSource<float>, PlainSink<float>, 0>(election, num, output);
}
void ElectDoubles(const SignElection<double>& election, std::size_t num, double* output) {
  Elect<PlainSource<double>, PlainSink<double>, 0>(election, num, output);
}
void ElectBf16(const SignElection<float>& election, std::size_t num, std::uint16_t* output) {
  switch (election.terms.size()) {
    case 1:
      return Elect<Bf16Source, Bf16Sink, 1>(election, num, output);
    case 2:
      return Elect<Bf16Source, Bf16Sink, 2>(election, num, output);
    case 3:
      return Elect<Bf16Source, Bf16Sink, 3>(election, num, output);
    default:
      return Elect<Bf16Source, Bf16Sink, 0>(election, num, output);
  }
}

void KeptFloat(const KeepRule& rule, std::uint32_t index_salt, const float* term, const float* base, std::size_t num, std::uint32_t low,
               double* target) {
  const hn::ScalableTag<float> d;
  const hn::ScalableTag<double> dd;
  const hn::Rebind<float, decltype(dd)> half;
  const AtOrAbove<decltype(d)> keeps(rule.magnitude, rule.hash, rule.factor);
  MixedIndices<decltype(d)> indices(low, index_salt);
  alignas(64) float kept[hn::MaxLanes(d)];
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    const auto delta = hn::Sub(hn::LoadU(d, term + i), hn::LoadU(d, base + i));
    const auto mask = hn::RebindMask(d, keeps.Test(MagnitudeKey(d, delta), indices.Next()));
    hn::Store(hn::IfThenElseZero(mask, delta), d, kept);
    for (std::size_t j = 0; j < hn::Lanes(d); j += hn::Lanes(dd))
      hn::StoreU(hn::PromoteTo(dd, hn::LoadU(half, kept + j)), dd, target + i + j);
  }
}
void KeptDouble(const KeepRule& rule, std::uint32_t index_salt, const double* term, const double* base, std::size_t num, std::uint32_t low,
                double* target) {
  const hn::ScalableTag<double> d;
  const AtOrAbove<decltype(d)> keeps(rule.magnitude, rule.hash, rule.factor);
  MixedIndices<decltype(d)> indices(low, index_salt);
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    const auto delta = hn::Sub(hn::LoadU(d, term + i), hn::LoadU(d, base + i));
    const auto mask = hn::RebindMask(d, keeps.Test(MagnitudeKey(d, delta), indices.Next()));
    hn::StoreU(hn::IfThenElseZero(mask, delta), d, target + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moeweld::merge {

HWY_EXPORT(ElectFloats);
HWY_EXPORT(ElectDoubles);
HWY_EXPORT(ElectBf16);
HWY_EXPORT(ElectBetweenBf16);
HWY_EXPORT(KeptFloat);
HWY_EXPORT(KeptDouble);

void elect_signs(const SignElection<float>& election, std::size_t num, float* output) {
  HWY_DYNAMIC_DISPATCH(ElectFloats)(election, num, output);
}
void elect_signs(const SignElection<double>& election, std::size_t num, double* output) {
  HWY_DYNAMIC_DISPATCH(ElectDoubles)(election, num, output);
}
void elect_signs_bf16(const SignElection<float>& election, std::size_t num, std::uint16_t* output) {
  HWY_DYNAMIC_DISPATCH(ElectBf16)(election, num, output);
}
void elect_between_bf16(const SignElection<float>& election, std::span<const KeepRule> lows, std::size_t num, std::uint16_t* output,
                        ElectionDoubts& doubts) {
  HWY_DYNAMIC_DISPATCH(ElectBetweenBf16)(election, lows, num, output, doubts);
}
void kept_deltas(const KeepRule& rule, std::uint32_t index_salt, const float* term, const float* base, std::size_t num, std::uint32_t low,
                 double* target) {
  HWY_DYNAMIC_DISPATCH(KeptFloat)(rule, index_salt, term, base, num, low, target);
}
void kept_deltas(const KeepRule& rule, std::uint32_t index_salt, const double* term, const double* base, std::size_t num, std::uint32_t low,
                 double* target) {
  HWY_DYNAMIC_DISPATCH(KeptDouble)(rule, index_salt, term, base, num, low, target);
}

}  // namespace moeweld::merge
#endif
