// Per-target evaluation of KeepRule and of magnitude keys.
#if defined(MOEWELD_MERGE_KERNELS_KEEP_RULE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOEWELD_MERGE_KERNELS_KEEP_RULE_INL_H_
#undef MOEWELD_MERGE_KERNELS_KEEP_RULE_INL_H_
#else
#define MOEWELD_MERGE_KERNELS_KEEP_RULE_INL_H_
#endif

#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "merge/kernels/keep_rule.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::merge {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
struct FloatBits;
template <>
struct FloatBits<float> {
  using Signed = std::int32_t;
  static constexpr Signed kMagnitude = 0x7FFFFFFF;
  static constexpr Signed kNan = 0x7FC00000;
};
template <>
struct FloatBits<double> {
  using Signed = std::int64_t;
  static constexpr Signed kMagnitude = 0x7FFFFFFFFFFFFFFF;
  static constexpr Signed kNan = 0x7FF8000000000000;
};

// Bits of |value|, every NaN as the same largest key.
template <class D>
HWY_INLINE hn::VFromD<hn::RebindToSigned<D>> MagnitudeKey(D d, hn::VFromD<D> value) {
  using Bits = FloatBits<hn::TFromD<D>>;
  const hn::RebindToSigned<D> di;
  (void)d;
  return hn::Min(hn::And(hn::BitCast(di, value), hn::Set(di, Bits::kMagnitude)), hn::Set(di, Bits::kNan));
}

template <class DU32>
HWY_INLINE hn::VFromD<DU32> HashIndices(DU32 d, std::uint32_t first_low, std::uint32_t salt) {
  auto x = hn::Xor(hn::Iota(d, first_low), hn::Set(d, salt));
  x = hn::Xor(x, hn::ShiftRight<16>(x));
  x = hn::Mul(x, hn::Set(d, 0x7FEB352Du));
  x = hn::Xor(x, hn::ShiftRight<15>(x));
  x = hn::Mul(x, hn::Set(d, 0x846CA68Bu));
  return hn::Xor(x, hn::ShiftRight<16>(x));
}

// Hashes of Lanes(d) indices as non-negative signed lanes of D's width, order kept: for 32-bit lanes the top bit is flipped into the sign.
template <class D, hwy::EnableIf<sizeof(hn::TFromD<D>) == 4>* = nullptr>
HWY_INLINE hn::VFromD<hn::RebindToSigned<D>> OrderedHashes(D, std::uint32_t first_low, std::uint32_t salt) {
  const hn::RebindToSigned<D> di;
  const hn::RebindToUnsigned<D> du;
  return hn::BitCast(di, hn::Xor(HashIndices(du, first_low, salt), hn::Set(du, 0x80000000u)));
}
template <class D, hwy::EnableIf<sizeof(hn::TFromD<D>) == 8>* = nullptr>
HWY_INLINE hn::VFromD<hn::RebindToSigned<D>> OrderedHashes(D, std::uint32_t first_low, std::uint32_t salt) {
  const hn::RebindToSigned<D> di;
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<std::uint32_t, D> du32;
  return hn::BitCast(di, hn::PromoteTo(du, HashIndices(du32, first_low, salt)));
}
template <class D>
HWY_INLINE hn::VFromD<hn::RebindToSigned<D>> OrderedHashBound(D, std::uint32_t hash) {
  const hn::RebindToSigned<D> di;
  if constexpr (sizeof(hn::TFromD<D>) == 4) return hn::Set(di, static_cast<std::int32_t>(hash ^ 0x80000000u));
  return hn::Set(di, static_cast<typename FloatBits<hn::TFromD<D>>::Signed>(hash));
}

// `value` where the rule keeps it, zero elsewhere.
template <class D>
HWY_INLINE hn::VFromD<D> KeepOrZero(D d, const KeepRule& rule, hn::VFromD<D> value, std::uint32_t first_low) {
  using Signed = typename FloatBits<hn::TFromD<D>>::Signed;
  if (rule.kind == KeepRule::Kind::kAll) return value;
  if (rule.kind == KeepRule::Kind::kNone) return hn::Zero(d);
  const hn::RebindToSigned<D> di;
  const auto key = MagnitudeKey(d, value);
  const auto bound = hn::Set(di, static_cast<Signed>(rule.magnitude));
  const auto above = hn::Gt(key, bound);
  const auto equal = hn::Eq(key, bound);
  if (rule.kind == KeepRule::Kind::kMagnitude) return hn::IfThenElseZero(hn::RebindMask(d, hn::Or(above, equal)), value);
  auto keep = above;
  if (!hn::AllFalse(di, equal)) {
    const auto hashes = OrderedHashes(d, first_low, rule.salt);
    const auto hash_bound = OrderedHashBound(d, rule.hash);
    auto stays = hn::Gt(hashes, hash_bound);
    if (rule.hash_inclusive) stays = hn::Or(stays, hn::Eq(hashes, hash_bound));
    keep = hn::Or(above, hn::And(equal, stays));
  }
  return hn::IfThenElseZero(hn::RebindMask(d, keep), value);
}

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#endif
