#include "merge/kernels/lane_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "merge/kernels/lane_sums.cpp"
#include "hwy/foreach_target.h"  // must precede the -inl header
#include "hwy/highway.h"
#include "merge/kernels/vector_codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::merge {
namespace HWY_NAMESPACE {

using Doubles = hn::CappedTag<double, kSumLanes>;
using DoubleVector = hn::VFromD<Doubles>;
constexpr std::size_t kVectors = kSumLanes / hn::MaxLanes(Doubles());

struct Accumulators {
  DoubleVector lanes[kVectors];
  HWY_INLINE explicit Accumulators(const LaneSums& sums) {
    for (std::size_t v = 0; v < kVectors; ++v) lanes[v] = hn::LoadU(Doubles(), sums.data() + v * hn::Lanes(Doubles()));
  }
  HWY_INLINE void Add(std::size_t v, DoubleVector value) { lanes[v] = hn::Add(lanes[v], value); }
  // Of factors whose product is exact: fused or not, the sum is the same.
  HWY_INLINE void AddExactProduct(std::size_t v, DoubleVector a, DoubleVector b) { lanes[v] = hn::MulAdd(a, b, lanes[v]); }
  HWY_INLINE void Store(LaneSums& sums) const {
    for (std::size_t v = 0; v < kVectors; ++v) hn::StoreU(lanes[v], Doubles(), sums.data() + v * hn::Lanes(Doubles()));
  }
};

void AddProducts(const double* a, const double* b, std::size_t num, LaneSums& sums) {
  const Doubles d;
  Accumulators lanes(sums);
  for (std::size_t i = 0; i < num; i += kSumLanes) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      const std::size_t at = i + v * hn::Lanes(d);
      lanes.Add(v, hn::Mul(hn::LoadU(d, a + at), hn::LoadU(d, b + at)));
    }
  }
  lanes.Store(sums);
}

void AddProductsBf16(const std::uint16_t* a, const std::uint16_t* b, std::size_t num, LaneSums& aa, LaneSums& ab, LaneSums& bb) {
  const Doubles d;
  const Bf16Source source_a(a);
  const Bf16Source source_b(b);
  Accumulators lanes_aa(aa);
  Accumulators lanes_ab(ab);
  Accumulators lanes_bb(bb);
  for (std::size_t i = 0; i < num; i += kSumLanes) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      const std::size_t at = i + v * hn::Lanes(d);
      const auto value_a = source_a.Load(d, at);
      const auto value_b = source_b.Load(d, at);
      lanes_aa.AddExactProduct(v, value_a, value_a);
      lanes_ab.AddExactProduct(v, value_a, value_b);
      lanes_bb.AddExactProduct(v, value_b, value_b);
    }
  }
  lanes_aa.Store(aa);
  lanes_ab.Store(ab);
  lanes_bb.Store(bb);
}

void AddMagnitudes(const double* a, std::size_t num, LaneSums& sums) {
  const Doubles d;
  Accumulators lanes(sums);
  for (std::size_t i = 0; i < num; i += kSumLanes) {
    for (std::size_t v = 0; v < kVectors; ++v) lanes.Add(v, hn::Abs(hn::LoadU(d, a + i + v * hn::Lanes(d))));
  }
  lanes.Store(sums);
}

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moeweld::merge {

HWY_EXPORT(AddProducts);
HWY_EXPORT(AddProductsBf16);
HWY_EXPORT(AddMagnitudes);

void add_products(const double* a, const double* b, std::size_t num, LaneSums& lanes) {
  HWY_DYNAMIC_DISPATCH(AddProducts)(a, b, num, lanes);
}
void add_products_bf16(const std::uint16_t* a, const std::uint16_t* b, std::size_t num, LaneSums& aa, LaneSums& ab, LaneSums& bb) {
  HWY_DYNAMIC_DISPATCH(AddProductsBf16)(a, b, num, aa, ab, bb);
}
void add_magnitudes(const double* a, std::size_t num, LaneSums& lanes) { HWY_DYNAMIC_DISPATCH(AddMagnitudes)(a, num, lanes); }

}  // namespace moeweld::merge
#endif
