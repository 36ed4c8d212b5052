#include "moeweld/merge/block_scales.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "merge/kernels/block_scales.cpp"
#include "hwy/foreach_target.h"  // must precede the -inl header
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::merge {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kScaleBlock>;
using Codes = hn::Rebind<std::uint8_t, Floats>;
using Words = hn::RebindToUnsigned<Floats>;

// In integers and one exact subtraction, as F16 is decoded. Infinite exponents are ordinary here: only 0x7F is special.
HWY_INLINE hn::VFromD<Floats> DecodeE4M3(hn::VFromD<Words> code) {
  const Floats df;
  const Words du;
  const auto sign = hn::ShiftLeft<24>(hn::And(code, hn::Set(du, 0x80u)));
  const auto magnitude = hn::ShiftLeft<20>(hn::And(code, hn::Set(du, 0x7Fu)));
  const auto normal = hn::Add(magnitude, hn::Set(du, 120u << 23));
  const auto one_up = hn::Set(du, 121u << 23);
  const auto subnormal = hn::BitCast(du, hn::Sub(hn::BitCast(df, hn::Add(magnitude, one_up)), hn::BitCast(df, one_up)));
  auto result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 1u << 23)), subnormal, normal);
  result = hn::IfThenElse(hn::Eq(magnitude, hn::Set(du, 0x7Fu << 20)), hn::Set(du, 0x7FC00000u), result);
  return hn::BitCast(df, hn::Or(result, sign));
}

HWY_INLINE hn::VFromD<Words> EncodeE4M3(hn::VFromD<Floats> value) {
  const Floats df;
  const Words du;
  const auto bits = hn::BitCast(du, value);
  const auto sign = hn::ShiftRight<24>(hn::And(bits, hn::Set(du, 0x80000000u)));
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFFu));
  const auto odd = hn::And(hn::ShiftRight<20>(magnitude), hn::Set(du, 1u));
  const auto normal = hn::ShiftRight<20>(hn::Sub(hn::Add(magnitude, hn::Add(odd, hn::Set(du, 0x7FFFFu))), hn::Set(du, 120u << 23)));
  // The unit in the last place of 2^14 is 2^-9, the smallest subnormal: adding it rounds to a multiple of that.
  const auto large_bits = hn::Set(du, 141u << 23);
  const auto subnormal = hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(df, magnitude), hn::BitCast(df, large_bits))), large_bits);
  auto result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 121u << 23)), subnormal, normal);
  result = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, 0x43E00000u)), hn::Set(du, 0x7Eu), result);
  result = hn::Or(result, sign);
  return hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, 0x7F7FFFFFu)), hn::Set(du, 0x7Fu), result);
}

// Calls work(first, count, block) for the parts of a row that lie in one block each.
template <class Work>
HWY_INLINE void ForBlocks(std::uint64_t first_column, std::size_t num, Work&& work) {
  for (std::size_t done = 0; done < num;) {
    const std::uint64_t column = first_column + done;
    const std::size_t count = std::min<std::size_t>(kScaleBlock - column % kScaleBlock, num - done);
    work(done, count, static_cast<std::size_t>(column / kScaleBlock));
    done += count;
  }
}

std::uint64_t DecodeRow(const std::uint8_t* codes, std::uint64_t first_column, std::size_t num, const float* scales, float* values) {
  const Floats df;
  const Words du;
  const Codes dc;
  const std::size_t lanes = hn::Lanes(df);
  const auto canonical = hn::BitCast(df, hn::Set(du, 0x7FC00000u));
  std::uint64_t num_nan = 0;
  ForBlocks(first_column, num, [&](std::size_t first, std::size_t count, std::size_t block) HWY_ATTR {
    const auto scale = hn::Set(df, scales[block]);
    auto nan_lanes = hn::Zero(du);
    const auto decode = [&](const std::uint8_t* from, float* to) HWY_ATTR {
      const auto value = DecodeE4M3(hn::PromoteTo(du, hn::LoadU(dc, from)));
      nan_lanes = hn::Sub(nan_lanes, hn::VecFromMask(du, hn::RebindMask(du, hn::IsNaN(value))));
      const auto product = hn::Mul(value, scale);
      hn::StoreU(hn::IfThenElse(hn::IsNaN(product), canonical, product), df, to);
    };
    std::size_t i = 0;
    for (; i + lanes <= count; i += lanes) decode(codes + first + i, values + first + i);
    if (i != count) {
      std::array<std::uint8_t, kScaleBlock> rest{};
      std::array<float, kScaleBlock> decoded;
      std::memcpy(rest.data(), codes + first + i, count - i);
      decode(rest.data(), decoded.data());
      std::memcpy(values + first + i, decoded.data(), (count - i) * sizeof(float));
    }
    num_nan += hn::GetLane(hn::SumOfLanes(du, nan_lanes));
  });
  return num_nan;
}

void RaiseMaxima(const float* values, std::uint64_t first_column, std::size_t num, float* maxima) {
  const Floats df;
  const std::size_t lanes = hn::Lanes(df);
  ForBlocks(first_column, num, [&](std::size_t first, std::size_t count, std::size_t block) HWY_ATTR {
    auto most = hn::Set(df, maxima[block]);
    const auto raise = [&](const float* from) HWY_ATTR {
      const auto value = hn::LoadU(df, from);
      most = hn::Max(most, hn::IfThenElseZero(hn::IsFinite(value), hn::Abs(value)));
    };
    std::size_t i = 0;
    for (; i + lanes <= count; i += lanes) raise(values + first + i);
    if (i != count) {
      std::array<float, kScaleBlock> rest{};
      std::memcpy(rest.data(), values + first + i, (count - i) * sizeof(float));
      raise(rest.data());
    }
    maxima[block] = hn::GetLane(hn::MaxOfLanes(df, most));
  });
}

void EncodeRow(const float* values, std::uint64_t first_column, std::size_t num, const float* scales, std::uint8_t* codes) {
  const Floats df;
  const hn::RebindToSigned<Floats> di;
  const Codes dc;
  const std::size_t lanes = hn::Lanes(df);
  ForBlocks(first_column, num, [&](std::size_t first, std::size_t count, std::size_t block) HWY_ATTR {
    const auto scale = hn::Set(df, scales[block]);
    const auto encode = [&](const float* from, std::uint8_t* to) HWY_ATTR {
      const auto quotient = hn::Div(hn::LoadU(df, from), scale);
      hn::StoreU(hn::DemoteTo(dc, hn::BitCast(di, EncodeE4M3(quotient))), dc, to);
    };
    std::size_t i = 0;
    for (; i + lanes <= count; i += lanes) encode(values + first + i, codes + first + i);
    if (i != count) {
      std::array<float, kScaleBlock> rest{};
      std::array<std::uint8_t, kScaleBlock> encoded;
      std::memcpy(rest.data(), values + first + i, (count - i) * sizeof(float));
      encode(rest.data(), encoded.data());
      std::memcpy(codes + first + i, encoded.data(), count - i);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moeweld::merge {

HWY_EXPORT(DecodeRow);
HWY_EXPORT(RaiseMaxima);
HWY_EXPORT(EncodeRow);

std::uint64_t decode_block_scaled(const std::byte* codes, std::uint64_t first_column, const float* row_scales, std::span<float> values) {
  return HWY_DYNAMIC_DISPATCH(DecodeRow)(reinterpret_cast<const std::uint8_t*>(codes), first_column, values.size(), row_scales,
                                         values.data());
}

void raise_block_maxima(std::span<const float> values, std::uint64_t first_column, float* row_maxima) {
  HWY_DYNAMIC_DISPATCH(RaiseMaxima)(values.data(), first_column, values.size(), row_maxima);
}

float block_scale(float maximum) { return std::max(maximum / kLargestE4M3, std::numeric_limits<float>::min()); }

void encode_block_scaled(std::span<const float> values, std::uint64_t first_column, const float* row_scales, std::byte* codes) {
  HWY_DYNAMIC_DISPATCH(EncodeRow)(values.data(), first_column, values.size(), row_scales, reinterpret_cast<std::uint8_t*>(codes));
}

}  // namespace moeweld::merge
#endif
