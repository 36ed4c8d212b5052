#include "merge/kernels/select_keys.h"

#include <bit>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "merge/kernels/select_keys.cpp"
#include "hwy/foreach_target.h"  // must precede the -inl headers
#include "hwy/highway.h"
#include "merge/kernels/keep_rule-inl.h"
#include "merge/kernels/vector_codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::merge {
namespace HWY_NAMESPACE {

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

void OrderKeys(const float* term, const float* base, const std::uint64_t* elements, std::size_t num, std::uint32_t index_salt,
               std::uint32_t input_factor, std::uint64_t* keys) {
  const hn::ScalableTag<std::uint64_t> d;
  const hn::Rebind<std::uint32_t, decltype(d)> du;
  const hn::Rebind<float, decltype(d)> df;
  const auto salt = hn::Set(du, index_salt);
  const auto factor = hn::Set(du, input_factor);
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= num; i += lanes) {
    const auto delta = hn::Sub(hn::LoadU(df, term + i), hn::LoadU(df, base + i));
    const auto magnitude = hn::And(hn::BitCast(du, delta), hn::Set(du, 0x7FFFFFFFu));
    const auto index = hn::TruncateTo(du, hn::LoadU(d, elements + i));
    const auto hash = hn::Xor(hn::Mul(MixIndices(du, index, salt), factor), hn::Set(du, kHashFlip));
    hn::StoreU(hn::Or(hn::ShiftLeft<32>(hn::PromoteTo(d, magnitude)), hn::PromoteTo(d, hash)), d, keys + i);
  }
  for (; i < num; ++i) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(term[i] - base[i]) & 0x7FFFFFFFu;
    keys[i] = std::uint64_t{magnitude} << 32 | hash_index(index_salt, input_factor, elements[i]);
  }
}

template <class Source, typename T, typename Key>
KeyCounts Select(const void* term, const void* base, std::size_t num, const KeyBracket<Key>& bracket, Key* keys, Key* places) {
  const hn::ScalableTag<T> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::RebindToUnsigned<decltype(d)> du;
  const Source terms(term);
  const Source bases(base);
  const AtOrAbove<decltype(d)> low(bracket.low.magnitude, bracket.low.hash, bracket.input_factor);
  const AtOrAbove<decltype(d)> high(bracket.high.magnitude, bracket.high.hash, bracket.input_factor);
  MixedIndices<decltype(d)> indices(bracket.first_low, bracket.index_salt);
  KeyCounts counts;
  auto place = hn::Iota(du, Key{0});
  const auto step = hn::Set(du, static_cast<Key>(hn::Lanes(d)));
  for (std::size_t i = 0; i < num; i += hn::Lanes(d), place = hn::Add(place, step)) {
    const auto key = MagnitudeKey(d, hn::Sub(terms.Load(d, i), bases.Load(d, i)));
    const auto mixed = indices.Next();
    const auto above = high.Test(key, mixed);
    counts.above += hn::CountTrue(di, above);
    const auto inside = hn::AndNot(above, low.Test(key, mixed));
    if (hn::AllFalse(di, inside)) continue;
    const auto match = hn::RebindMask(du, inside);
    // Not CompressStore: compressing into memory is microcode on some processors, some two hundred cycles each.
    hn::StoreU(hn::Compress(place, match), du, places + counts.inside);
    hn::StoreU(hn::Compress(hn::BitCast(du, key), match), du, keys + counts.inside);
    counts.inside += hn::CountTrue(du, match);
  }
  return counts;
}
KeyCounts SelectFloat(const float* term, const float* base, std::size_t num, const KeyBracket<std::uint32_t>& bracket, std::uint32_t* keys,
                      std::uint32_t* places) {
  return Select<PlainSource<float>, float>(term, base, num, bracket, keys, places);
}
KeyCounts SelectDouble(const double* term, const double* base, std::size_t num, const KeyBracket<std::uint64_t>& bracket,
                       std::uint64_t* keys, std::uint64_t* places) {
  return Select<PlainSource<double>, double>(term, base, num, bracket, keys, places);
}
KeyCounts SelectBf16(const std::uint16_t* term, const std::uint16_t* base, std::size_t num, const KeyBracket<std::uint32_t>& bracket,
                     std::uint32_t* keys, std::uint32_t* places) {
  return Select<Bf16Source, float>(term, base, num, bracket, keys, places);
}

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moeweld::merge {

HWY_EXPORT(KeysFloat);
HWY_EXPORT(KeysDouble);
HWY_EXPORT(KeysBf16);
HWY_EXPORT(OrderKeys);
HWY_EXPORT(SelectFloat);
HWY_EXPORT(SelectDouble);
HWY_EXPORT(SelectBf16);

void magnitude_keys(const float* term, const float* base, std::size_t num, std::uint32_t* keys) {
  HWY_DYNAMIC_DISPATCH(KeysFloat)(term, base, num, keys);
}
void magnitude_keys(const double* term, const double* base, std::size_t num, std::uint64_t* keys) {
  HWY_DYNAMIC_DISPATCH(KeysDouble)(term, base, num, keys);
}
void magnitude_keys_bf16(const std::uint16_t* term, const std::uint16_t* base, std::size_t num, std::uint32_t* keys) {
  HWY_DYNAMIC_DISPATCH(KeysBf16)(term, base, num, keys);
}
void order_keys(const float* term, const float* base, const std::uint64_t* elements, std::size_t num, std::uint32_t index_salt,
                std::uint32_t input_factor, std::uint64_t* keys) {
  HWY_DYNAMIC_DISPATCH(OrderKeys)(term, base, elements, num, index_salt, input_factor, keys);
}
KeyCounts select_keys(const float* term, const float* base, std::size_t num, const KeyBracket<std::uint32_t>& bracket, std::uint32_t* keys,
                      std::uint32_t* places) {
  return HWY_DYNAMIC_DISPATCH(SelectFloat)(term, base, num, bracket, keys, places);
}
KeyCounts select_keys(const double* term, const double* base, std::size_t num, const KeyBracket<std::uint64_t>& bracket,
                      std::uint64_t* keys, std::uint64_t* places) {
  return HWY_DYNAMIC_DISPATCH(SelectDouble)(term, base, num, bracket, keys, places);
}
KeyCounts select_keys_bf16(const std::uint16_t* term, const std::uint16_t* base, std::size_t num, const KeyBracket<std::uint32_t>& bracket,
                           std::uint32_t* keys, std::uint32_t* places) {
  return HWY_DYNAMIC_DISPATCH(SelectBf16)(term, base, num, bracket, keys, places);
}

}  // namespace moeweld::merge
#endif
