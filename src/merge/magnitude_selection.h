#pragma once
/// The exact k-th largest |x − b| of a tensor, found by histograms that add up over blocks and ranks.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "merge/kernels/keep_rule.h"
#include "moeweld/merge/method.h"

namespace moeweld::merge {

/// Elements are ordered by unique keys: bits of |δ| in the arithmetic type (every NaN largest), then a hash of the index (distinct within
/// 2^32 indices), then the index's high half. So "the k largest" is exact, the same on any number of ranks, and among equal magnitudes does
/// not favour the first rows.
///
/// One search per input that has to be sparsified: a digit of 16 bits per phase, from the top, until the cut falls on the border of a bin.
class MagnitudeSelection {
 public:
  static constexpr std::size_t kBins = 1 << 16;

  /// How many inputs' searches a Decisions holds is fixed by the method; `inputs` are indices into Task::inputs.
  MagnitudeSelection(const Task& task, std::vector<int> inputs) : task_(task), inputs_(std::move(inputs)) {}

  /// k for a density in (0, 1): max(1, ⌊density · n⌋).
  static std::uint64_t count_to_keep(double density, std::uint64_t num_elements);

  /// Starts every search; densities[i] belongs to inputs[i]: ≥ 1 keeps all, ≤ 0 nothing.
  void start(std::span<const double> densities, Decisions& decisions) const;

  /// Inputs whose search goes on: their histograms, kBins each, in this order, are the counts of the next phase. Empty: all is decided.
  std::vector<std::size_t> open_searches(const Decisions& decisions) const;

  void measure(const Decisions& decisions, const Elements& block, std::span<std::uint64_t> counts) const;
  void decide(std::span<const std::uint64_t> counts, Decisions& decisions) const;

  /// The rule for elements whose indices have this high half; `search` is an index into inputs. May be called before all is decided only
  /// for inputs that are.
  KeepRule rule(const Decisions& decisions, std::size_t search, std::uint64_t index) const;

 private:
  const Task& task_;
  std::vector<int> inputs_;
};

}  // namespace moeweld::merge
