#include "align/products.h"

#include <algorithm>
#include <cstdint>

#include "moeweld/base/open_spans.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "align/products.cpp"
#include "hwy/foreach_target.h"  // must precede the -inl header
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::align {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Columns of c made together: the lanes of one or several vectors.
constexpr std::size_t kPanel = 32;
constexpr std::size_t kRows = 4;

using Floats = hn::CappedTag<float, kPanel>;
constexpr std::size_t kVectors = kPanel / hn::MaxLanes(Floats());

/// `panel`: [kDepth][kPanel], b's rows as columns. kRows rows of a, of which `rows` are wanted.
void MultiplyPanel(const float* a, std::size_t rows, const float* panel, std::size_t columns, float* c, std::size_t stride) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  hn::VFromD<Floats> sums[kRows][kVectors];
  for (auto& row : sums) {
    for (auto& sum : row) sum = hn::Zero(d);
  }
  const float* row_of[kRows];
  for (std::size_t i = 0; i < kRows; ++i) row_of[i] = a + std::min(i, rows - 1) * kDepth;
  for (std::size_t k = 0; k < kDepth; ++k) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      const auto b = hn::Load(d, panel + k * kPanel + v * lanes);
      for (std::size_t i = 0; i < kRows; ++i) sums[i][v] = hn::Add(sums[i][v], hn::Mul(hn::Set(d, row_of[i][k]), b));
    }
  }
  HWY_ALIGN float result[kPanel];
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t v = 0; v < kVectors; ++v) hn::Store(sums[i][v], d, result + v * lanes);
    for (std::size_t j = 0; j < columns; ++j) c[i * stride + j] += result[j];
  }
}

void AddProducts(const float* a, std::size_t rows, const float* b, std::size_t columns, float* c, std::size_t stride) {
  HWY_ALIGN float panel[kDepth * kPanel];
  for (std::size_t first = 0; first < columns; first += kPanel) {
    const std::size_t count = std::min(kPanel, columns - first);
    for (std::size_t j = 0; j < kPanel; ++j) {
      for (std::size_t k = 0; k < kDepth; ++k) panel[k * kPanel + j] = j < count ? b[(first + j) * kDepth + k] : 0.0F;
    }
    for (std::size_t i = 0; i < rows; i += kRows) {
      MultiplyPanel(a + i * kDepth, std::min(kRows, rows - i), panel, count, c + i * stride + first, stride);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::align
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moeweld::align {

HWY_EXPORT(AddProducts);

void add_products(const float* a, std::size_t rows, const float* b, std::size_t columns, float* c, std::size_t stride, int threads) {
  constexpr std::size_t kColumnsAtOnce = 128;
  const auto num_parts = static_cast<std::int64_t>((columns + kColumnsAtOnce - 1) / kColumnsAtOnce);
#pragma omp parallel for schedule(dynamic, 1) num_threads(std::max(1, threads)) if (num_parts > 1)
  for (std::int64_t part = 0; part < num_parts; ++part) {
    const std::size_t first = static_cast<std::size_t>(part) * kColumnsAtOnce;
    HWY_DYNAMIC_DISPATCH(AddProducts)(a, rows, b + first * kDepth, std::min(kColumnsAtOnce, columns - first), c + first, stride);
    trace::made_progress();
  }
}

}  // namespace moeweld::align
#endif
