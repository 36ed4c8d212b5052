#pragma once
/// Histograms of 16-bit digits of the keys (|x − b| bits, hash of the index), the measuring half of an exact selection.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "merge/kernels/convert.h"
#include "merge/kernels/keep_rule.h"

namespace moeweld::merge {

constexpr std::size_t kTopDigitBins = std::size_t{1} << 15;  ///< the sign is not part of a magnitude
constexpr std::size_t kDigitBins = std::size_t{1} << 16;

/// What a histogram reads: decoded tiles of one type, or (the _bf16 functions) BF16. `num` is padded, `num_valid` elements count.
struct DeltaRun {
  const void* input = nullptr;
  const void* base = nullptr;
  std::size_t num = 0;
  std::size_t num_valid = 0;
  std::uint32_t first_low = 0;  ///< low half of the first element's index
};

/// Counters of one thread for the most significant digit: several, so that runs of equal digits do not wait for each other's store.
class TopDigitCounters {
 public:
  TopDigitCounters();
  static constexpr std::size_t kCopies = 4;
  std::uint32_t* copy(std::size_t i) { return counters_.data() + i * kTopDigitBins; }
  /// Adds everything to `counts` and clears.
  void flush(std::span<std::uint64_t> counts);
  void cover(std::uint32_t lowest, std::uint32_t highest);

 private:
  std::vector<std::uint32_t> counters_;
  std::uint32_t lowest_ = kTopDigitBins;
  std::uint32_t highest_ = 0;
};

enum class Arithmetic : std::uint8_t { kBf16InFloat, kFloat, kDouble };

void count_top_digits(Arithmetic arithmetic, const DeltaRun& run, TopDigitCounters& counters);

/// One 16-bit digit of the magnitude (bits shift to shift + 15) of the elements whose higher bits equal those of `magnitude`. If
/// `zero_digit_hashes` is not empty, the high digit of the hash of those among them whose digit is 0 is counted there as well.
struct DigitQuery {
  std::uint64_t magnitude = 0;
  int shift = 0;
  std::uint32_t salt = 0;
};
void count_digits(Arithmetic arithmetic, const DeltaRun& run, const DigitQuery& query, std::span<std::uint64_t> counts,
                  std::span<std::uint64_t> zero_digit_hashes);

/// The high digit of the hash of the elements whose magnitude is exactly `query.magnitude`.
void count_hash_digits(Arithmetic arithmetic, const DeltaRun& run, const DigitQuery& query, std::span<std::uint64_t> counts);

/// Offsets of those among `num_valid` indices whose hash has `high_digit`: one in 65536. Reads no element.
void find_hashes(std::uint32_t first_low, std::size_t num_valid, std::uint32_t salt, std::uint32_t high_digit, std::vector<std::uint32_t>& offsets);

/// x − b where `rule` keeps it, zero elsewhere. Tiles of T.
void sparsify(const DeltaRun& run, const KeepRule& rule, float* target);
void sparsify(const DeltaRun& run, const KeepRule& rule, double* target);

}  // namespace moeweld::merge
