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

// mix32 of (index ^ index_salt), for Lanes(d) indices.
template <class DU32>
HWY_INLINE hn::VFromD<DU32> MixIndices(DU32 d, hn::VFromD<DU32> indices, hn::VFromD<DU32> index_salt) {
  auto x = hn::Xor(indices, index_salt);
  x = hn::Xor(x, hn::ShiftRight<16>(x));
  x = hn::Mul(x, hn::Set(d, 0x7FEB352Du));
  x = hn::Xor(x, hn::ShiftRight<15>(x));
  x = hn::Mul(x, hn::Set(d, 0x846CA68Bu));
  return hn::Xor(x, hn::ShiftRight<16>(x));
}

// Mixed indices of as many elements as D has lanes.
template <class D>
struct MixedIndices {
  using DU32 = hn::Rebind<std::uint32_t, D>;
  hn::VFromD<DU32> indices;
  hn::VFromD<DU32> salt;
  HWY_INLINE MixedIndices(std::uint32_t first_low, std::uint32_t index_salt)
      : indices(hn::Iota(DU32(), first_low)), salt(hn::Set(DU32(), index_salt)) {}
  HWY_INLINE hn::VFromD<DU32> Next() {
    const DU32 d;
    const auto mixed = MixIndices(d, indices, salt);
    indices = hn::Add(indices, hn::Set(d, static_cast<std::uint32_t>(hn::Lanes(d))));
    return mixed;
  }
};

// Which elements are at or above a bound.
template <class D>
struct AtOrAbove {
  using DI = hn::RebindToSigned<D>;
  using DI32 = hn::Rebind<std::int32_t, D>;
  using DU32 = hn::Rebind<std::uint32_t, D>;
  using Signed = hn::TFromD<DI>;
  hn::VFromD<DI> magnitude;
  hn::VFromD<DI> hash;
  hn::VFromD<DU32> factor;
  HWY_INLINE AtOrAbove(std::uint64_t bound_magnitude, std::uint32_t bound_hash, std::uint32_t input_factor)
      : magnitude(hn::Set(DI(), static_cast<Signed>(bound_magnitude))),
        hash(hn::Set(DI(), static_cast<Signed>(static_cast<std::int32_t>(bound_hash ^ kHashFlip)))),
        factor(hn::Set(DU32(), input_factor)) {}
  // For a bound whose hash is 0.
  HWY_INLINE auto Test(hn::VFromD<DI> key) const { return hn::Not(hn::Gt(magnitude, key)); }
  HWY_INLINE auto Test(hn::VFromD<DI> key, hn::VFromD<DU32> mixed) const {
    return hn::Or(hn::Gt(key, magnitude), hn::AndNot(hn::Gt(hash, Hash(mixed)), hn::Eq(key, magnitude)));
  }

 private:
  HWY_INLINE hn::VFromD<DI> Hash(hn::VFromD<DU32> mixed) const {
    const auto narrow = hn::BitCast(DI32(), hn::Mul(mixed, factor));
    if constexpr (sizeof(Signed) == 4) {
      return narrow;
    } else {
      return hn::PromoteTo(DI(), narrow);
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#endif
