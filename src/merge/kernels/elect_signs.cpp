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
template <class Source, class Sink, std::size_t kTerms, typename T>
void Elect(const SignElection<T>& election, std::size_t num, void* output) {
  const hn::ScalableTag<T> d;
  using V = hn::VFromD<decltype(d)>;
  const Sink sink(output);
  const Source base_source(election.base);
  const std::size_t num_terms = kTerms != 0 ? kTerms : election.terms.size();
  const bool scaled = !election.scales.empty();
  const auto zero = hn::Zero(d);
  const auto one = hn::Set(d, T{1});
  const auto lambda = hn::Set(d, election.lambda);
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    const V base = base_source.Load(d, i);
    const auto low = static_cast<std::uint32_t>(election.first_low + i);
    const auto term = [&](std::size_t k) HWY_ATTR {
      V value = KeepOrZero(d, election.rules[k], hn::Sub(Source(election.terms[k]).Load(d, i), base), low);
      if (scaled) value = hn::Mul(value, hn::Set(d, election.scales[k]));
      return hn::Mul(value, hn::Set(d, election.weights[k]));
    };
    V kept[kTerms != 0 ? kTerms : 1];
    V sum = term(0);
    if constexpr (kTerms != 0) kept[0] = sum;
    for (std::size_t k = 1; k < num_terms; ++k) {
      const V value = term(k);
      if constexpr (kTerms != 0) kept[k] = value;
      sum = hn::Add(sum, value);
    }
    const auto positive = hn::Ge(sum, zero);
    V mixed = zero;
    V divisor = zero;
    for (std::size_t k = 0; k < num_terms; ++k) {
      V value;
      if constexpr (kTerms != 0) {
        value = kept[k];
      } else {
        value = term(k);
      }
      // A comparison with NaN is false, so NaN is never left out.
      const auto left_out = hn::Or(hn::And(positive, hn::Le(value, zero)), hn::AndNot(positive, hn::Ge(value, zero)));
      mixed = hn::Add(mixed, hn::IfThenZeroElse(left_out, value));
      divisor = hn::Add(divisor, hn::IfThenZeroElse(left_out, hn::Set(d, election.weights[k])));
    }
    if (election.normalize) mixed = hn::Div(mixed, hn::IfThenElse(hn::Eq(divisor, zero), one, divisor));
    sink.Store(d, hn::Add(base, hn::Mul(mixed, lambda)), i);
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

template <class Source, typename T, typename Key>
void Keys(const void* term, const void* base, std::size_t num, Key* keys) {
  const hn::ScalableTag<T> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const Source terms(term);
  const Source bases(base);
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    hn::StoreU(hn::BitCast(du, MagnitudeKey(d, hn::Sub(terms.Load(d, i), bases.Load(d, i)))), du, keys + i);
  }
}
void KeysFloat(const float* term, const float* base, std::size_t num, std::uint32_t* keys) {
  Keys<PlainSource<float>, float>(term, base, num, keys);
}
void KeysDouble(const double* term, const double* base, std::size_t num, std::uint64_t* keys) {
  Keys<PlainSource<double>, double>(term, base, num, keys);
}
void KeysBf16(const std::uint16_t* term, const std::uint16_t* base, std::size_t num, std::uint32_t* keys) {
  Keys<Bf16Source, float>(term, base, num, keys);
}

template <class Source, typename T, typename Key>
std::size_t Find(const void* term, const void* base, std::size_t num, int shift, Key known, Key* keys, Key* places) {
  const hn::ScalableTag<T> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const Source terms(term);
  const Source bases(base);
  const auto wanted = hn::Set(du, known);
  std::size_t found = 0;
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    const auto key = hn::BitCast(du, MagnitudeKey(d, hn::Sub(terms.Load(d, i), bases.Load(d, i))));
    const auto match = hn::Eq(hn::ShiftRightSame(key, shift), wanted);
    if (hn::AllFalse(du, match)) continue;
    hn::CompressStore(hn::Iota(du, static_cast<Key>(i)), match, du, places + found);
    found += hn::CompressStore(key, match, du, keys + found);
  }
  return found;
}
std::size_t FindFloat(const float* term, const float* base, std::size_t num, int shift, std::uint32_t known, std::uint32_t* keys,
                      std::uint32_t* places) {
  return Find<PlainSource<float>, float>(term, base, num, shift, known, keys, places);
}
std::size_t FindDouble(const double* term, const double* base, std::size_t num, int shift, std::uint64_t known, std::uint64_t* keys,
                       std::uint64_t* places) {
  return Find<PlainSource<double>, double>(term, base, num, shift, known, keys, places);
}
std::size_t FindBf16(const std::uint16_t* term, const std::uint16_t* base, std::size_t num, int shift, std::uint32_t known,
                     std::uint32_t* keys, std::uint32_t* places) {
  return Find<Bf16Source, float>(term, base, num, shift, known, keys, places);
}

void KeptFloat(const KeepRule& rule, const float* term, const float* base, std::size_t num, std::uint32_t low, double* target) {
  const hn::ScalableTag<float> d;
  const hn::ScalableTag<double> dd;
  const hn::Rebind<float, decltype(dd)> half;
  alignas(64) float kept[hn::MaxLanes(d)];
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    hn::Store(KeepOrZero(d, rule, hn::Sub(hn::LoadU(d, term + i), hn::LoadU(d, base + i)), static_cast<std::uint32_t>(low + i)), d, kept);
    for (std::size_t j = 0; j < hn::Lanes(d); j += hn::Lanes(dd))
      hn::StoreU(hn::PromoteTo(dd, hn::LoadU(half, kept + j)), dd, target + i + j);
  }
}
void KeptDouble(const KeepRule& rule, const double* term, const double* base, std::size_t num, std::uint32_t low, double* target) {
  const hn::ScalableTag<double> d;
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    hn::StoreU(KeepOrZero(d, rule, hn::Sub(hn::LoadU(d, term + i), hn::LoadU(d, base + i)), static_cast<std::uint32_t>(low + i)), d,
               target + i);
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
HWY_EXPORT(KeysFloat);
HWY_EXPORT(KeysDouble);
HWY_EXPORT(KeysBf16);
HWY_EXPORT(FindFloat);
HWY_EXPORT(FindDouble);
HWY_EXPORT(FindBf16);
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
void magnitude_keys(const float* term, const float* base, std::size_t num, std::uint32_t* keys) {
  HWY_DYNAMIC_DISPATCH(KeysFloat)(term, base, num, keys);
}
void magnitude_keys(const double* term, const double* base, std::size_t num, std::uint64_t* keys) {
  HWY_DYNAMIC_DISPATCH(KeysDouble)(term, base, num, keys);
}
void magnitude_keys_bf16(const std::uint16_t* term, const std::uint16_t* base, std::size_t num, std::uint32_t* keys) {
  HWY_DYNAMIC_DISPATCH(KeysBf16)(term, base, num, keys);
}
std::size_t find_keys(const float* term, const float* base, std::size_t num, int shift, std::uint32_t known, std::uint32_t* keys,
                      std::uint32_t* places) {
  return HWY_DYNAMIC_DISPATCH(FindFloat)(term, base, num, shift, known, keys, places);
}
std::size_t find_keys(const double* term, const double* base, std::size_t num, int shift, std::uint64_t known, std::uint64_t* keys,
                      std::uint64_t* places) {
  return HWY_DYNAMIC_DISPATCH(FindDouble)(term, base, num, shift, known, keys, places);
}
std::size_t find_keys_bf16(const std::uint16_t* term, const std::uint16_t* base, std::size_t num, int shift, std::uint32_t known,
                           std::uint32_t* keys, std::uint32_t* places) {
  return HWY_DYNAMIC_DISPATCH(FindBf16)(term, base, num, shift, known, keys, places);
}
void kept_deltas(const KeepRule& rule, const float* term, const float* base, std::size_t num, std::uint32_t low, double* target) {
  HWY_DYNAMIC_DISPATCH(KeptFloat)(rule, term, base, num, low, target);
}
void kept_deltas(const KeepRule& rule, const double* term, const double* base, std::size_t num, std::uint32_t low, double* target) {
  HWY_DYNAMIC_DISPATCH(KeptDouble)(rule, term, base, num, low, target);
}

}  // namespace moeweld::merge
#endif
