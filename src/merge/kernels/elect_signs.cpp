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

// Keys of float32 at or above a bound. Of bound and key both are at most infinity or the key is NaN's, so one comparison after the tie's is
// enough: equals with too small a hash are compared with a bound that is one larger.
template <class DI>
struct Bound {
  using V = hn::VFromD<DI>;
  V reached;  // by the hash
  V missed;
  V hash;
  HWY_INLINE explicit Bound(const KeepRule& rule)
      : reached(hn::Set(DI(), static_cast<std::int32_t>(rule.magnitude) - 1)),
        missed(hn::Set(DI(), static_cast<std::int32_t>(rule.magnitude))),
        hash(hn::Set(DI(), static_cast<std::int32_t>(rule.hash ^ kHashFlip))) {}
  HWY_INLINE auto Test(V key, V key_hash) const { return hn::Gt(key, hn::IfThenElse(hn::Gt(hash, key_hash), missed, reached)); }
};

// As ElectAs, with two bounds per term: at or above `high` an element stays, below `low` it goes, and in between it goes for now and is
// listed. Two neighbours share a 32-bit lane in memory: the lower ones and the upper ones are computed as two vectors, so nothing is
// widened or narrowed. There is no branch: whether a vector holds a doubt is nearly a coin's toss.
template <std::size_t kTerms>
void ElectBetween(const SignElection<float>& election, std::span<const KeepRule> lows, std::size_t num, std::uint16_t* output,
                  ElectionDoubts& doubts) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::RebindToUnsigned<decltype(d)> du;
  using V = hn::VFromD<decltype(d)>;
  using VI = hn::VFromD<decltype(di)>;
  using VU = hn::VFromD<decltype(du)>;
  using B = Bound<decltype(di)>;
  const bool normalize = election.normalize;
  const auto zero = hn::Zero(d);
  const auto one = hn::Set(d, 1.0F);
  const auto lambda = hn::Set(d, election.lambda);
  const auto sign_bit = hn::SignBit(d);
  const auto magnitude_bits = hn::Set(di, FloatBits<float>::kMagnitude);
  const auto count_one = hn::Set(di, 1);
  const auto at = [](std::size_t k) { return k < kTerms ? k : 0; };
  static_assert(kTerms <= 4);
  const B high[4] = {B(election.rules[0]), B(election.rules[at(1)]), B(election.rules[at(2)]), B(election.rules[at(3)])};
  const B low[4] = {B(lows[0]), B(lows[at(1)]), B(lows[at(2)]), B(lows[at(3)])};
  const std::uint16_t* base_data = static_cast<const std::uint16_t*>(election.base);
  const std::uint16_t* data[kTerms];
  V weights[kTerms];
  VU factors[kTerms];
  VI above[kTerms];
  for (std::size_t k = 0; k < kTerms; ++k) {
    data[k] = static_cast<const std::uint16_t*>(election.terms[k]);
    weights[k] = hn::Set(d, election.weights[k]);
    factors[k] = hn::Set(du, lows[k].factor);
    above[k] = hn::Zero(di);
  }
  const auto salt = hn::Set(du, election.index_salt);
  auto place = hn::ShiftLeft<1>(hn::Iota(du, 0u));  // of the lower ones
  const auto first_low = hn::Set(du, election.first_low);
  const auto step = hn::Set(du, static_cast<std::uint32_t>(2 * hn::Lanes(d)));
  std::size_t found = doubts.num;

  // The lower and the upper neighbours side by side: one chain of operations alone would leave the processor waiting.
  for (std::size_t i = 0; i < num; i += 2 * hn::Lanes(d)) {
    const VU places[2] = {place, hn::Add(place, hn::Set(du, 1u))};
    place = hn::Add(place, step);
    V base[2];
    V deltas[kTerms][2];
    LoadBf16Halves(d, base_data + i, base);
    for (std::size_t k = 0; k < kTerms; ++k) {
      LoadBf16Halves(d, data[k] + i, deltas[k]);
      for (std::size_t h = 0; h < 2; ++h) deltas[k][h] = hn::Sub(deltas[k][h], base[h]);
    }
    VU mixed_indices[2];
    for (std::size_t h = 0; h < 2; ++h) mixed_indices[h] = MixIndices(du, hn::Add(places[h], first_low), salt);
    V values[kTerms][2];
    decltype(hn::Gt(hn::Zero(di), hn::Zero(di))) doubtful[2];
    V sum[2] = {zero, zero};
    for (std::size_t k = 0; k < kTerms; ++k) {
      for (std::size_t h = 0; h < 2; ++h) {
        // No bound is above infinity, so it does not matter in which order NaNs are.
        const auto key = hn::And(hn::BitCast(di, deltas[k][h]), magnitude_bits);
        const auto hash = hn::BitCast(di, hn::Mul(mixed_indices[h], factors[k]));
        const auto stays = high[k].Test(key, hash);
        above[k] = hn::IfThenElse(stays, hn::Add(above[k], count_one), above[k]);
        const auto is_doubtful = hn::AndNot(stays, low[k].Test(key, hash));
        doubtful[h] = k == 0 ? is_doubtful : hn::Or(doubtful[h], is_doubtful);
        values[k][h] = hn::Mul(hn::IfThenElseZero(hn::RebindMask(d, stays), deltas[k][h]), weights[k]);
        sum[h] = k == 0 ? values[k][h] : hn::Add(sum[h], values[k][h]);
      }
    }
    for (std::size_t h = 0; h < 2; ++h) {
      hn::StoreU(hn::Compress(places[h], hn::RebindMask(du, doubtful[h])), du, doubts.places + found);
      found += hn::CountTrue(di, doubtful[h]);
    }
    V flip[2];
    V mixed[2] = {zero, zero};
    V divisor[2] = {zero, zero};
    for (std::size_t h = 0; h < 2; ++h) flip[h] = hn::IfThenZeroElse(hn::Ge(sum[h], zero), sign_bit);
    for (std::size_t k = 0; k < kTerms; ++k) {
      for (std::size_t h = 0; h < 2; ++h) {
        const auto left_out = hn::Le(hn::Xor(values[k][h], flip[h]), zero);
        // What takes part is not zero, so 0 need not be added to it.
        const V value = hn::IfThenZeroElse(left_out, values[k][h]);
        const V weight = hn::IfThenZeroElse(left_out, weights[k]);
        mixed[h] = k == 0 ? value : hn::Add(mixed[h], value);
        divisor[h] = k == 0 ? weight : hn::Add(divisor[h], weight);
      }
    }
    if (normalize) {
      for (std::size_t h = 0; h < 2; ++h) mixed[h] = hn::Div(mixed[h], hn::IfThenElse(hn::Eq(divisor[h], zero), one, divisor[h]));
    }
    for (std::size_t h = 0; h < 2; ++h) mixed[h] = hn::Add(base[h], hn::Mul(mixed[h], lambda));
    StoreBf16Halves(d, mixed[0], mixed[1], output + i);
  }
  doubts.num = found;
  for (std::size_t k = 0; k < kTerms; ++k) doubts.above[k] += static_cast<std::uint32_t>(hn::GetLane(hn::SumOfLanes(di, above[k])));
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
