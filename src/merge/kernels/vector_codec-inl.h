// Per-target decoding and rounding. Included once per target by foreach_target, hence the toggling guard.
#if defined(MOEWELD_MERGE_KERNELS_VECTOR_CODEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOEWELD_MERGE_KERNELS_VECTOR_CODEC_INL_H_
#undef MOEWELD_MERGE_KERNELS_VECTOR_CODEC_INL_H_
#else
#define MOEWELD_MERGE_KERNELS_VECTOR_CODEC_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::merge {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Vectors of float32 with as many lanes as D, whatever D's lane type is.
template <class D>
using FloatsFor = hn::Rebind<float, D>;

// float64 to float32, nearest even. Highway's scalar DemoteTo makes infinity the largest finite number, which no vector target does.
template <class DF, class VD>
HWY_INLINE hn::VFromD<DF> NarrowToFloats(DF df, VD value) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(df, static_cast<float>(hn::GetLane(value)));
#else
  return hn::DemoteTo(df, value);
#endif
}

template <class DF>
HWY_INLINE hn::VFromD<DF> DecodeBf16(DF df, const std::uint16_t* source) {
  const hn::Rebind<std::uint32_t, DF> du32;
  const hn::Rebind<std::uint16_t, DF> du16;
  return hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du32, hn::LoadU(du16, source))));
}

// In integers and one exact subtraction: hardware conversions are not on every target, and a subnormal operand may be flushed.
template <class DF>
HWY_INLINE hn::VFromD<DF> DecodeF16(DF df, const std::uint16_t* source) {
  const hn::Rebind<std::uint32_t, DF> du32;
  const hn::Rebind<std::uint16_t, DF> du16;
  const auto code = hn::PromoteTo(du32, hn::LoadU(du16, source));
  const auto sign = hn::ShiftLeft<16>(hn::And(code, hn::Set(du32, 0x8000u)));
  const auto magnitude = hn::ShiftLeft<13>(hn::And(code, hn::Set(du32, 0x7FFFu)));
  const auto normal = hn::Add(magnitude, hn::Set(du32, 112u << 23));
  const auto subnormal = hn::BitCast(
      du32, hn::Sub(hn::BitCast(df, hn::Add(magnitude, hn::Set(du32, 113u << 23))), hn::BitCast(df, hn::Set(du32, 113u << 23))));
  const auto special = hn::Or(magnitude, hn::Set(du32, 0x7F800000u));
  auto result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du32, 0x0400u << 13)), subnormal, normal);
  result = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du32, (0x7C00u << 13) - 1)), special, result);
  return hn::BitCast(df, hn::Or(result, sign));
}

// What a kernel reads its operands from. Load() gives Lanes(d) consecutive elements in d's type.
struct Bf16Source {
  using Element = float;
  const std::uint16_t* data;
  explicit HWY_INLINE Bf16Source(const void* pointer) : data(static_cast<const std::uint16_t*>(pointer)) {}
  template <class D, hwy::EnableIf<sizeof(hn::TFromD<D>) == 4>* = nullptr>
  HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i) const {
    return DecodeBf16(d, data + i);
  }
  template <class D, hwy::EnableIf<sizeof(hn::TFromD<D>) == 8>* = nullptr>
  HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i) const {
    return hn::PromoteTo(d, DecodeBf16(FloatsFor<D>(), data + i));
  }
};

struct F16Source {
  const std::uint16_t* data;
  explicit HWY_INLINE F16Source(const void* pointer) : data(static_cast<const std::uint16_t*>(pointer)) {}
  template <class D, hwy::EnableIf<sizeof(hn::TFromD<D>) == 4>* = nullptr>
  HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i) const {
    return DecodeF16(d, data + i);
  }
  template <class D, hwy::EnableIf<sizeof(hn::TFromD<D>) == 8>* = nullptr>
  HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i) const {
    return hn::PromoteTo(d, DecodeF16(FloatsFor<D>(), data + i));
  }
};

template <typename T>
struct PlainSource {
  using Element = T;
  const T* data;
  explicit HWY_INLINE PlainSource(const void* pointer) : data(static_cast<const T*>(pointer)) {}
  // Same type.
  template <class D, hwy::EnableIf<sizeof(hn::TFromD<D>) == sizeof(T)>* = nullptr>
  HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i) const {
    return hn::LoadU(d, data + i);
  }
  // float32 to float64.
  template <class D, hwy::EnableIf<(sizeof(hn::TFromD<D>) > sizeof(T))>* = nullptr>
  HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i) const {
    return hn::PromoteTo(d, hn::LoadU(FloatsFor<D>(), data + i));
  }
  // float64 to float32.
  template <class D, hwy::EnableIf<(sizeof(hn::TFromD<D>) < sizeof(T))>* = nullptr>
  HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i) const {
#if HWY_TARGET == HWY_SCALAR
    return NarrowToFloats(d, hn::LoadU(hn::Rebind<double, D>(), data + i));
#else
    const hn::Half<D> half;
    const hn::Rebind<double, hn::Half<D>> doubles;
    return hn::Combine(d, hn::DemoteTo(half, hn::LoadU(doubles, data + i + hn::Lanes(half))),
                       hn::DemoteTo(half, hn::LoadU(doubles, data + i)));
#endif
  }
};

// float32 to the bits of BF16 in 32-bit lanes, nearest even. NaN becomes (top bits & nan_keep) | nan_set.
template <class DF, class VF = hn::VFromD<DF>, class VU = hn::VFromD<hn::RebindToUnsigned<DF>>>
HWY_INLINE VU RoundToBf16(DF df, VF value, VU nan_keep, VU nan_set) {
  const hn::RebindToUnsigned<DF> du;
  const auto bits = hn::BitCast(du, value);
  const auto top = hn::ShiftRight<16>(bits);
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::Set(du, 0x7FFFu), hn::And(top, hn::Set(du, 1u)))));
  (void)df;
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(value)), hn::Or(hn::And(top, nan_keep), nan_set), rounded);
}

// The same without the shift: BF16 in the upper half of each lane, anything in the lower one. NaN becomes `nan`.
template <class DF, class VF = hn::VFromD<DF>, class VU = hn::VFromD<hn::RebindToUnsigned<DF>>>
HWY_INLINE VU RoundToUpperBf16(DF df, VF value, VU nan) {
  const hn::RebindToUnsigned<DF> du;
  const auto bits = hn::BitCast(du, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  (void)df;
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(value)), nan, hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFFu))));
}

// Pairs of 16-bit neighbours as they lie in memory, the first in the lower half of a lane.
template <class DU>
HWY_INLINE hn::VFromD<DU> LoadPairs(DU du, const std::uint16_t* source) {
#if HWY_TARGET == HWY_SCALAR
  std::uint32_t pair;
  hwy::CopyBytes<sizeof(pair)>(source, &pair);
  return hn::Set(du, pair);
#else
  return hn::BitCast(du, hn::LoadU(hn::Repartition<std::uint16_t, DU>(), source));
#endif
}
template <class DU>
HWY_INLINE void StorePairs(DU du, hn::VFromD<DU> pairs, std::uint16_t* target) {
#if HWY_TARGET == HWY_SCALAR
  const std::uint32_t pair = hn::GetLane(pairs);
  hwy::CopyBytes<sizeof(pair)>(&pair, target);
  (void)du;
#else
  const hn::Repartition<std::uint16_t, DU> halves;
  hn::StoreU(hn::BitCast(halves, pairs), halves, target);
  (void)du;
#endif
}

// 2 * Lanes(df) neighbours of BF16 as two vectors, the lower and the upper ones of the pairs: nothing is widened or narrowed.
template <class DF>
HWY_INLINE void LoadBf16Halves(DF df, const std::uint16_t* source, hn::VFromD<DF>* halves) {
  const hn::RebindToUnsigned<DF> du;
  const auto pairs = LoadPairs(du, source);
  halves[0] = hn::BitCast(df, hn::ShiftLeft<16>(pairs));
  halves[1] = hn::BitCast(df, hn::And(pairs, hn::Set(du, 0xFFFF0000u)));
}
// Rounds them to where they came from; every NaN as Bf16Sink has it.
template <class DF, class VF = hn::VFromD<DF>>
HWY_INLINE void StoreBf16Halves(DF df, VF lower, VF upper, std::uint16_t* target) {
  const hn::RebindToUnsigned<DF> du;
  const auto nan = hn::Set(du, 0x7FC00000u);
  const auto low = hn::ShiftRight<16>(RoundToUpperBf16(df, lower, nan));
  StorePairs(du, hn::Or(low, hn::And(RoundToUpperBf16(df, upper, nan), hn::Set(du, 0xFFFF0000u))), target);
}

template <class DF, class VF = hn::VFromD<DF>, class VU = hn::VFromD<hn::RebindToUnsigned<DF>>>
HWY_INLINE VU RoundToF16(DF df, VF value, VU nan_keep, VU nan_set) {
  const hn::RebindToUnsigned<DF> du;
  const auto bits = hn::BitCast(du, value);
  const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 0x8000u));
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFFu));
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1u));
  // 112 << 23 moves the exponent's bias; the sum stays below 2^32.
  const auto normal = hn::ShiftRight<13>(hn::Sub(hn::Add(magnitude, hn::Add(odd, hn::Set(du, 0xFFFu))), hn::Set(du, 112u << 23)));
  // The unit in the last place of 0.5 is the smallest subnormal, so adding 0.5 rounds to a multiple of it.
  const auto half_bits = hn::Set(du, 126u << 23);
  const auto subnormal = hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(df, magnitude), hn::BitCast(df, half_bits))), half_bits);
  auto result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 113u << 23)), subnormal, normal);
  result = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, 0x477FEFFFu)), hn::Set(du, 0x7C00u), result);
  result = hn::Or(result, sign);
  const auto nan = hn::Or(hn::And(hn::Or(sign, hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 0x3FFu))), nan_keep), nan_set);
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(value)), nan, result);
}

template <class DF, class VU = hn::VFromD<hn::RebindToUnsigned<DF>>>
HWY_INLINE void StoreLow16(DF df, VU codes, std::uint16_t* target) {
  const hn::RebindToSigned<DF> di;
  const hn::Rebind<std::uint16_t, DF> du16;
  (void)df;
  hn::StoreU(hn::DemoteTo(du16, hn::BitCast(di, codes)), du16, target);
}

// Where a kernel puts its results, computed ones: every NaN becomes the positive quiet one, because which of two NaN operands an addition
// passes on differs between processors.
struct Bf16Sink {
  std::uint16_t* data;
  explicit HWY_INLINE Bf16Sink(void* pointer) : data(static_cast<std::uint16_t*>(pointer)) {}
  template <class D, class V = hn::VFromD<D>>
  HWY_INLINE void Store(D d, V value, std::size_t i) const {
    const hn::RebindToUnsigned<D> du;
    StoreLow16(d, RoundToBf16(d, value, hn::Zero(du), hn::Set(du, 0x7FC0u)), data + i);
  }
};

template <typename T>
struct PlainSink {
  T* data;
  explicit HWY_INLINE PlainSink(void* pointer) : data(static_cast<T*>(pointer)) {}
  template <class D, class V = hn::VFromD<D>>
  HWY_INLINE void Store(D d, V value, std::size_t i) const {
    hn::StoreU(value, d, data + i);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#endif
