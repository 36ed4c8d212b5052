#include "merge/kernels/value_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "merge/kernels/value_sums.cpp"
#include "hwy/foreach_target.h"  // must precede highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::merge {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Doubles = hn::CappedTag<double, kSumLanes>;

void AddValues(const double* values, const double* reference, std::size_t num, ValueLanes& lanes) {
  const Doubles d;
  // Lane by lane through the whole tile: the four sums stay in registers on every processor.
  for (std::size_t lane = 0; lane < kSumLanes; lane += hn::Lanes(d)) {
    auto squares = hn::LoadU(d, lanes.squares.data() + lane);
    auto dot = hn::LoadU(d, lanes.dot.data() + lane);
    auto squared_difference = hn::LoadU(d, lanes.squared_difference.data() + lane);
    auto max_absolute = hn::LoadU(d, lanes.max_absolute.data() + lane);
    for (std::size_t i = lane; i < num; i += kSumLanes) {
      const auto value = hn::LoadU(d, values + i);
      const auto other = hn::LoadU(d, reference + i);
      const auto difference = hn::Sub(value, other);
      squares = hn::Add(squares, hn::Mul(value, value));
      dot = hn::Add(dot, hn::Mul(value, other));
      squared_difference = hn::Add(squared_difference, hn::Mul(difference, difference));
      max_absolute = hn::Max(max_absolute, hn::Abs(value));
    }
    hn::StoreU(squares, d, lanes.squares.data() + lane);
    hn::StoreU(dot, d, lanes.dot.data() + lane);
    hn::StoreU(squared_difference, d, lanes.squared_difference.data() + lane);
    hn::StoreU(max_absolute, d, lanes.max_absolute.data() + lane);
  }
}

void WidenBounds(const double* values, const double* reference, std::size_t num, double* lowest, double* highest) {
  const Doubles d;
  for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
    const auto difference = hn::Sub(hn::LoadU(d, values + i), hn::LoadU(d, reference + i));
    hn::StoreU(hn::Min(hn::LoadU(d, lowest + i), difference), d, lowest + i);
    hn::StoreU(hn::Max(hn::LoadU(d, highest + i), difference), d, highest + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moeweld::merge {

HWY_EXPORT(AddValues);
HWY_EXPORT(WidenBounds);

void add_values(const double* values, const double* reference, std::size_t num, ValueLanes& lanes) {
  HWY_DYNAMIC_DISPATCH(AddValues)(values, reference, num, lanes);
}
void widen_bounds(const double* values, const double* reference, std::size_t num, double* lowest, double* highest) {
  HWY_DYNAMIC_DISPATCH(WidenBounds)(values, reference, num, lowest, highest);
}

}  // namespace moeweld::merge
#endif
