#include "merge/kernels/convert.h"

#include <cstdint>

#include "moeweld/base/error.h"
#include "moeweld/merge/measure.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "merge/kernels/convert.cpp"
#include "hwy/foreach_target.h"  // must precede the -inl header
#include "hwy/highway.h"
#include "merge/kernels/vector_codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::merge {
namespace HWY_NAMESPACE {

template <class Source, typename T>
void DecodeFrom(const void* source, std::size_t num, T* target) {
  const hn::ScalableTag<T> d;
  const Source from(source);
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) hn::StoreU(from.Load(d, i), d, target + i);
}

template <typename T>
bool DecodeTo(DType dtype, const void* source, std::size_t num, T* target) {
  switch (dtype) {
    case DType::kBF16:
      DecodeFrom<Bf16Source>(source, num, target);
      return true;
    case DType::kF16:
      DecodeFrom<F16Source>(source, num, target);
      return true;
    case DType::kF32:
      DecodeFrom<PlainSource<float>>(source, num, target);
      return true;
    case DType::kF64:
      DecodeFrom<PlainSource<double>>(source, num, target);
      return true;
    default:
      return false;
  }
}

bool DecodeFloats(DType dtype, const void* source, std::size_t num, float* target) { return DecodeTo(dtype, source, num, target); }
bool DecodeDoubles(DType dtype, const void* source, std::size_t num, double* target) { return DecodeTo(dtype, source, num, target); }

bool EncodeFloats(DType dtype, const float* source, std::size_t num, bool keep_payload, void* target) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  auto* codes = static_cast<std::uint16_t*>(target);
  const auto keep = hn::Set(du, keep_payload ? 0xFFFFu : 0u);
  if (dtype == DType::kBF16) {
    const auto set = hn::Set(du, keep_payload ? 0x40u : 0x7FC0u);
    for (std::size_t i = 0; i < num; i += hn::Lanes(d)) StoreLow16(d, RoundToBf16(d, hn::LoadU(d, source + i), keep, set), codes + i);
    return true;
  }
  if (dtype == DType::kF16) {
    const auto set = hn::Set(du, 0x7E00u);
    for (std::size_t i = 0; i < num; i += hn::Lanes(d)) StoreLow16(d, RoundToF16(d, hn::LoadU(d, source + i), keep, set), codes + i);
    return true;
  }
  return false;
}

bool EncodeDoubles(DType dtype, const double* source, std::size_t num, bool keep_payload, void* target) {
  const hn::ScalableTag<double> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const auto canonical = hn::BitCast(d, hn::Set(du, 0x7FF8000000000000u));
  const auto quiet = hn::Set(du, 0x0008000000000000u);
  auto* doubles = static_cast<double*>(target);
  auto* floats = static_cast<float*>(target);
  if (dtype != DType::kF64 && dtype != DType::kF32) return false;
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    auto value = hn::LoadU(d, source + i);
    const auto quieted = keep_payload ? hn::BitCast(d, hn::Or(hn::BitCast(du, value), quiet)) : canonical;
    value = hn::IfThenElse(hn::IsNaN(value), quieted, value);
    if (dtype == DType::kF64) {
      hn::StoreU(value, d, doubles + i);
    } else {
      hn::StoreU(NarrowToFloats(FloatsFor<decltype(d)>(), value), FloatsFor<decltype(d)>(), floats + i);
    }
  }
  return true;
}

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moeweld::merge {

HWY_EXPORT(DecodeFloats);
HWY_EXPORT(DecodeDoubles);
HWY_EXPORT(EncodeFloats);
HWY_EXPORT(EncodeDoubles);

namespace {
void require(bool known, DType dtype) {
  if (!known) throw Error(ErrorCode::kInternal, "a merge kernel was given elements of type " + std::string(name(dtype)));
}

template <typename Bits>
std::uint64_t count_exponent(const std::byte* data, std::size_t num, Bits exponent) {
  const auto* codes = reinterpret_cast<const Bits*>(data);
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < num; ++i) count += (codes[i] & exponent) == exponent;
  return count;
}
}  // namespace

void decode(DType dtype, const void* source, std::size_t num, float* target) {
  require(HWY_DYNAMIC_DISPATCH(DecodeFloats)(dtype, source, num, target), dtype);
}
void decode(DType dtype, const void* source, std::size_t num, double* target) {
  require(HWY_DYNAMIC_DISPATCH(DecodeDoubles)(dtype, source, num, target), dtype);
}
void encode(DType dtype, const float* source, std::size_t num, NanPolicy nan, void* target) {
  require(HWY_DYNAMIC_DISPATCH(EncodeFloats)(dtype, source, num, nan == NanPolicy::kPayload, target), dtype);
}
void encode(DType dtype, const double* source, std::size_t num, NanPolicy nan, void* target) {
  require(HWY_DYNAMIC_DISPATCH(EncodeDoubles)(dtype, source, num, nan == NanPolicy::kPayload, target), dtype);
}

std::uint64_t count_non_finite(DType dtype, const std::byte* data, std::size_t num_elements) {
  switch (dtype) {
    case DType::kBF16:
      return count_exponent<std::uint16_t>(data, num_elements, 0x7F80);
    case DType::kF16:
      return count_exponent<std::uint16_t>(data, num_elements, 0x7C00);
    case DType::kF32:
      return count_exponent<std::uint32_t>(data, num_elements, 0x7F800000u);
    case DType::kF64:
      return count_exponent<std::uint64_t>(data, num_elements, 0x7FF0000000000000u);
    default:
      return 0;
  }
}

}  // namespace moeweld::merge
#endif
