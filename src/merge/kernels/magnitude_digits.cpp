#include "merge/kernels/magnitude_digits.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "merge/kernels/magnitude_digits.cpp"
#include "hwy/foreach_target.h"  // must precede the -inl headers
#include "hwy/highway.h"
#include "merge/kernels/keep_rule-inl.h"
#include "merge/kernels/vector_codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moeweld::merge {
namespace HWY_NAMESPACE {

constexpr std::size_t kRun = 512;  // keys extracted at a time

template <class Source, class D>
HWY_INLINE hn::VFromD<hn::RebindToSigned<D>> DeltaKey(D d, const Source& input, const Source& base, std::size_t i) {
  return MagnitudeKey(d, hn::Sub(input.Load(d, i), base.Load(d, i)));
}

template <class Source>
void CountTop(const DeltaRun& run, TopDigitCounters& counters) {
  using T = typename Source::Element;
  using Signed = typename FloatBits<T>::Signed;
  constexpr int kShift = sizeof(T) * 8 - 16;
  const hn::ScalableTag<T> d;
  const hn::RebindToSigned<decltype(d)> di;
  const Source input(run.input);
  const Source base(run.base);
  HWY_ALIGN Signed digits[kRun];
  std::uint32_t* copy0 = counters.copy(0);
  std::uint32_t* copy1 = counters.copy(1);
  std::uint32_t* copy2 = counters.copy(2);
  std::uint32_t* copy3 = counters.copy(3);
  // Zeros have a bin of their own and would widen the range that flush() walks.
  const auto beyond = hn::Set(di, Signed{kTopDigitBins});
  auto lowest = beyond;
  auto highest = hn::Zero(di);
  for (std::size_t first = 0; first < run.num_valid; first += kRun) {
    const std::size_t num = HWY_MIN(kRun, run.num - first);
    for (std::size_t i = 0; i < num; i += hn::Lanes(d)) {
      const auto digit = hn::ShiftRight<kShift>(DeltaKey(d, input, base, first + i));
      hn::Store(digit, di, digits + i);
      lowest = hn::Min(lowest, hn::IfThenElse(hn::Eq(digit, hn::Zero(di)), beyond, digit));
      highest = hn::Max(highest, digit);
    }
    const std::size_t valid = HWY_MIN(num, run.num_valid - first);
    std::size_t i = 0;
    for (; i + 4 <= valid; i += 4) {
      ++copy0[digits[i]];
      ++copy1[digits[i + 1]];
      ++copy2[digits[i + 2]];
      ++copy3[digits[i + 3]];
    }
    for (; i < valid; ++i) ++copy0[digits[i]];
  }
  HWY_ALIGN Signed lanes[HWY_MAX_BYTES / sizeof(Signed)];
  hn::Store(lowest, di, lanes);
  Signed low = lanes[0];
  for (std::size_t i = 1; i < hn::Lanes(di); ++i) low = HWY_MIN(low, lanes[i]);
  hn::Store(highest, di, lanes);
  Signed high = lanes[0];
  for (std::size_t i = 1; i < hn::Lanes(di); ++i) high = HWY_MAX(high, lanes[i]);
  counters.cover(static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(high));
}

void CountTopDigits(Arithmetic arithmetic, const DeltaRun& run, TopDigitCounters& counters) {
  if (arithmetic == Arithmetic::kBf16InFloat) return CountTop<Bf16Source>(run, counters);
  if (arithmetic == Arithmetic::kFloat) return CountTop<PlainSource<float>>(run, counters);
  CountTop<PlainSource<double>>(run, counters);
}

// Calls visit(key, offset) for the elements whose key and prefix agree above `shift`.
template <class Source, class Visit>
HWY_INLINE void VisitPrefix(const DeltaRun& run, std::uint64_t prefix, int shift, Visit visit) {
  using T = typename Source::Element;
  using Signed = typename FloatBits<T>::Signed;
  const hn::ScalableTag<T> d;
  const hn::RebindToSigned<decltype(d)> di;
  const Source input(run.input);
  const Source base(run.base);
  const auto high_bits = hn::Set(di, static_cast<Signed>(~std::uint64_t{0} << shift));
  const auto wanted = hn::Set(di, static_cast<Signed>(prefix >> shift << shift));
  HWY_ALIGN Signed keys[HWY_MAX_BYTES / sizeof(Signed)];
  HWY_ALIGN Signed offsets[HWY_MAX_BYTES / sizeof(Signed)];
  for (std::size_t i = 0; i < run.num; i += hn::Lanes(d)) {
    const auto key = DeltaKey(d, input, base, i);
    const auto match = hn::Eq(hn::And(key, high_bits), wanted);
    if (hn::AllFalse(di, match)) continue;
    const std::size_t found = hn::CompressStore(key, match, di, keys);
    (void)hn::CompressStore(hn::Iota(di, static_cast<Signed>(i)), match, di, offsets);
    for (std::size_t j = 0; j < found; ++j) {
      const auto offset = static_cast<std::size_t>(offsets[j]);
      if (offset < run.num_valid) visit(static_cast<std::uint64_t>(keys[j]), offset);
    }
  }
}

struct CountDigit {
  const DeltaRun& run;
  const DigitQuery& query;
  std::uint64_t* counts;
  std::uint64_t* zero_digit_hashes;
  HWY_INLINE void operator()(std::uint64_t key, std::size_t offset) const {
    const auto digit = static_cast<std::size_t>((key >> query.shift) & 0xFFFF);
    ++counts[digit];
    if (digit == 0 && zero_digit_hashes != nullptr) {
      ++zero_digit_hashes[mix32((run.first_low + static_cast<std::uint32_t>(offset)) ^ query.salt) >> 16];
    }
  }
};

struct CountHash {
  const DeltaRun& run;
  const DigitQuery& query;
  std::uint64_t* counts;
  HWY_INLINE void operator()(std::uint64_t, std::size_t offset) const {
    ++counts[mix32((run.first_low + static_cast<std::uint32_t>(offset)) ^ query.salt) >> 16];
  }
};

template <class Visit>
void VisitPrefixOf(Arithmetic arithmetic, const DeltaRun& run, std::uint64_t prefix, int shift, Visit visit) {
  if (arithmetic == Arithmetic::kBf16InFloat) return VisitPrefix<Bf16Source>(run, prefix, shift, visit);
  if (arithmetic == Arithmetic::kFloat) return VisitPrefix<PlainSource<float>>(run, prefix, shift, visit);
  VisitPrefix<PlainSource<double>>(run, prefix, shift, visit);
}

void CountDigits(Arithmetic arithmetic, const DeltaRun& run, const DigitQuery& query, std::uint64_t* counts, std::uint64_t* zero_digit_hashes) {
  VisitPrefixOf(arithmetic, run, query.magnitude, query.shift + 16, CountDigit{run, query, counts, zero_digit_hashes});
}

void CountHashDigits(Arithmetic arithmetic, const DeltaRun& run, const DigitQuery& query, std::uint64_t* counts) {
  VisitPrefixOf(arithmetic, run, query.magnitude, 0, CountHash{run, query, counts});
}

// `found` has room for num_valid + 64.
std::size_t FindHashes(std::uint32_t first_low, std::size_t num_valid, std::uint32_t salt, std::uint32_t high_digit, std::uint32_t* found) {
  const hn::ScalableTag<std::uint32_t> d;
  const auto wanted = hn::Set(d, high_digit);
  std::size_t count = 0;
  for (std::size_t i = 0; i < num_valid; i += hn::Lanes(d)) {
    const auto match = hn::Eq(hn::ShiftRight<16>(HashIndices(d, first_low + static_cast<std::uint32_t>(i), salt)), wanted);
    if (hn::AllFalse(d, match)) continue;
    count += hn::CompressStore(hn::Iota(d, static_cast<std::uint32_t>(i)), match, d, found + count);
  }
  return count;
}

template <typename T>
void Sparsify(const DeltaRun& run, const KeepRule& rule, T* target) {
  const hn::ScalableTag<T> d;
  const PlainSource<T> input(run.input);
  const PlainSource<T> base(run.base);
  for (std::size_t i = 0; i < run.num; i += hn::Lanes(d)) {
    const auto delta = hn::Sub(input.Load(d, i), base.Load(d, i));
    hn::StoreU(KeepOrZero(d, rule, delta, run.first_low + static_cast<std::uint32_t>(i)), d, target + i);
  }
}
void SparsifyFloats(const DeltaRun& run, const KeepRule& rule, float* target) { Sparsify(run, rule, target); }
void SparsifyDoubles(const DeltaRun& run, const KeepRule& rule, double* target) { Sparsify(run, rule, target); }

}  // namespace HWY_NAMESPACE
}  // namespace moeweld::merge
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moeweld::merge {

HWY_EXPORT(CountTopDigits);
HWY_EXPORT(CountDigits);
HWY_EXPORT(CountHashDigits);
HWY_EXPORT(FindHashes);
HWY_EXPORT(SparsifyFloats);
HWY_EXPORT(SparsifyDoubles);

TopDigitCounters::TopDigitCounters() : counters_(kCopies * kTopDigitBins) {}

void TopDigitCounters::cover(std::uint32_t lowest, std::uint32_t highest) {
  lowest_ = std::min(lowest_, lowest);
  highest_ = std::max(highest_, highest);
}

void TopDigitCounters::flush(std::span<std::uint64_t> counts) {
  const auto move_bin = [&](std::size_t bin) {
    for (std::size_t i = 0; i < kCopies; ++i) {
      counts[bin] += copy(i)[bin];
      copy(i)[bin] = 0;
    }
  };
  move_bin(0);
  for (std::size_t bin = std::max<std::size_t>(lowest_, 1); bin <= highest_; ++bin) move_bin(bin);
  lowest_ = kTopDigitBins;
  highest_ = 0;
}

void count_top_digits(Arithmetic arithmetic, const DeltaRun& run, TopDigitCounters& counters) {
  HWY_DYNAMIC_DISPATCH(CountTopDigits)(arithmetic, run, counters);
}

void count_digits(Arithmetic arithmetic, const DeltaRun& run, const DigitQuery& query, std::span<std::uint64_t> counts,
                  std::span<std::uint64_t> zero_digit_hashes) {
  HWY_DYNAMIC_DISPATCH(CountDigits)(arithmetic, run, query, counts.data(), zero_digit_hashes.empty() ? nullptr : zero_digit_hashes.data());
}

void count_hash_digits(Arithmetic arithmetic, const DeltaRun& run, const DigitQuery& query, std::span<std::uint64_t> counts) {
  HWY_DYNAMIC_DISPATCH(CountHashDigits)(arithmetic, run, query, counts.data());
}

void find_hashes(std::uint32_t first_low, std::size_t num_valid, std::uint32_t salt, std::uint32_t high_digit, std::vector<std::uint32_t>& offsets) {
  // In pieces, because in the worst case every index of one matches and compressing writes whole vectors.
  constexpr std::size_t kPiece = 4096;
  std::uint32_t found[kPiece + kPadElements];
  for (std::size_t first = 0; first < num_valid; first += kPiece) {
    const std::size_t num = std::min(kPiece, num_valid - first);
    const std::size_t count =
        HWY_DYNAMIC_DISPATCH(FindHashes)(first_low + static_cast<std::uint32_t>(first), num, salt, high_digit, found);
    for (std::size_t i = 0; i < count; ++i) {
      if (found[i] < num) offsets.push_back(static_cast<std::uint32_t>(first) + found[i]);
    }
  }
}

void sparsify(const DeltaRun& run, const KeepRule& rule, float* target) { HWY_DYNAMIC_DISPATCH(SparsifyFloats)(run, rule, target); }
void sparsify(const DeltaRun& run, const KeepRule& rule, double* target) { HWY_DYNAMIC_DISPATCH(SparsifyDoubles)(run, rule, target); }

}  // namespace moeweld::merge
#endif
