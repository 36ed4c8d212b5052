#pragma once
/// The exact k-th largest |x − b| of a tensor, found by a sample, then by counts and keys that add up over blocks and ranks.

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
/// One search per input that has to be sparsified, each in a bracket of keys that the next phase narrows:
///   sample     keys of a few runs spread over a large tensor: a bracket that very likely holds the k-th key
///   collect    counts what is above the bracket and lists the keys inside: the k-th is one of them
///   histogram  where the bracket holds too many keys to list: counts them in 2^16 equal parts
/// A sample that misleads costs a pass, never exactness: the counts show that the key is elsewhere, and the bracket moves there. So a large
/// tensor is read twice, nearly always, however its magnitudes are distributed (docs/decisions/007).
class MagnitudeSelection {
 public:
  /// Place of an element in the order: magnitude bits, hash of the index, high half of the index, from the top.
  using OrderKey = unsigned __int128;

  /// `inputs` are indices into Task::inputs.
  MagnitudeSelection(const Task& task, std::vector<int> inputs) : task_(task), inputs_(std::move(inputs)) {}

  /// k for a density in (0, 1): max(1, ⌊density · n⌋).
  static std::uint64_t count_to_keep(double density, std::uint64_t num_elements);

  /// Starts every search; densities[i] belongs to inputs[i]: ≥ 1 keeps all, ≤ 0 nothing.
  void start(std::span<const double> densities, Decisions& decisions) const;

  /// What the next phase measures; nothing when all is decided.
  std::optional<PhaseShape> next_phase(const Decisions& decisions) const;

  void measure(const Decisions& decisions, const Elements& block, std::span<std::uint64_t> counts, std::vector<double>& sums) const;
  /// Sums are lists, in block order.
  static void fold(std::span<const double> sums, std::vector<double>& total) { total.insert(total.end(), sums.begin(), sums.end()); }
  void decide(const PhaseResult& result, Decisions& decisions) const;

  /// Elements that guess() wants to see, 0 where sampling is not worth it.
  std::uint64_t sample_elements() const;
  /// Brackets from sampled runs, each a multiple of kRunElements long. False: a bracket reaches to infinities
  /// or to zero, or says too little.
  bool guess(std::span<const Elements> sample, Decisions& decisions) const;
  /// Confirms the guess and finds the keys. counts[i] of the parts: elements of inputs[i] at or above its bracket; their elements are all
  /// that lie in a bracket, and may be others. Leaves the elements' keys for drop(). False: at least one guess was wrong; the search goes
  /// on beside it.
  bool settle(std::span<Doubts> parts, Decisions& decisions) const;
  /// While a key is only guessed: rule() is the bracket's lower bound, this its upper one. Elsewhere the same.
  KeepRule rule_above(const Decisions& decisions, std::size_t search, std::uint64_t index) const;
  /// The values of `count` doubts from `first` on where they stay, the base's where they go, for one search that is settled.
  void drop(const Decisions& decisions, std::size_t search, const Doubts& doubts, std::size_t first, std::size_t count,
            float* target) const;

  /// The sample consists of runs of neighbours: a cache line or two each.
  static constexpr std::uint64_t kRunElements = 64;

  /// The rule for elements whose indices have the high half of `index`; `search` is an index into inputs. May be called before all is
  /// decided only for inputs that are.
  KeepRule rule(const Decisions& decisions, std::size_t search, std::uint64_t index) const;

  /// The most that measuring takes beside the inputs.
  std::uint64_t scratch_bytes(int threads) const;

  /// Of the keys that one phase lists, in all searches together, as a rule.
  static constexpr std::uint64_t kListedKeysBytes = std::uint64_t{1} << 24;

 private:
  std::vector<std::size_t> open_searches(const Decisions& decisions) const;
  KeepRule rule_at(OrderKey key, std::size_t search, std::uint64_t index) const;

  const Task& task_;
  std::vector<int> inputs_;
};

}  // namespace moeweld::merge
