#pragma once
/// A merge method is a row in a table: name, parameters, and how it measures, decides and applies (docs/decisions/001-method-table.md).

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moeweld/merge/task.h"

namespace moeweld::merge {

enum class Base : std::uint8_t {
  kIgnored,   ///< a base among the inputs is an input like any other
  kOptional,  ///< used where given
  kRequired,
};

struct InputRule {
  std::size_t min_inputs = 1;
  std::size_t max_inputs = SIZE_MAX;
  Base base = Base::kIgnored;
};

enum class ParameterType : std::uint8_t { kNumber, kBoolean };

struct ParameterRow {
  std::string_view name;
  ParameterType type = ParameterType::kNumber;
  std::optional<double> default_value;  ///< none: required. Booleans are 0 or 1
  /// "scale: none" of passthrough: absent is a value of its own. Resolved to NaN.
  bool optional = false;
  std::string_view meaning;  ///< one line for `moeweld methods` and the docs
  bool base_too = false;     ///< per-model ones: the base has a value as well (linear's weight)
  bool no_effect = false;    ///< accepted for compatibility, said in the plan's notes
};

/// What one phase of measuring yields. Both parts add up over blocks and ranks.
struct PhaseShape {
  int phase = 0;               ///< the method's own number of the phase
  std::size_t num_counts = 0;  ///< integers: counts and histograms, added in any order
  /// Whether blocks yield float64 sums. The sums of one block may have any length; fold() combines them in block order.
  bool has_sums = false;
  /// Whatever it yields, no other phase follows.
  bool is_only = false;
};

/// What all blocks of one phase add up to.
struct PhaseResult {
  std::vector<std::uint64_t> counts;
  std::vector<double> sums;  ///< as fold() left them
};

/// Elements of one task whose results a guess leaves open, with the values of every input there.
struct Doubts {
  std::vector<std::uint64_t> counts;       ///< the method's own, added up
  std::vector<std::uint64_t> elements;     ///< indices, in any order
  std::vector<std::vector<float>> inputs;  ///< one list per input of the task, one value per element
  /// The method's own: what settle() has found out about the elements and mend() goes by. Until settle() it may be of another tensor.
  std::vector<std::vector<std::uint64_t>> keys;

  /// Empty, with the memory kept.
  void clear() {
    counts.clear();
    elements.clear();
    for (std::vector<float>& list : inputs) list.clear();
  }
};

/// How a method applies before all is measured: from a sample it guesses what measuring would decide, applies that to every element, and
/// lists the few whose results the guess leaves open. What was counted on the way confirms the guess and decides exactly; then the open
/// elements are mended. So a tensor is read once and its inputs need not be held, only its result. The bytes are those of measuring and
/// applying.
struct Speculation {
  /// How many sampled elements guess() wants; 0: this task is not worth it or not suited.
  std::uint64_t (*sample_elements)(const Task& task);

  /// From runs of elements spread over the tensor (each a multiple of 64 long): decisions for apply(). False: no guess can be made.
  bool (*guess)(const Task& task, std::span<const Elements> sample, Decisions& decisions);

  /// As MethodRow::apply, under guessed decisions; adds to `doubts`. Thread-safe for distinct doubts.
  void (*apply)(const Task& task, const Decisions& guess, const Elements& elements, std::byte* output, Doubts& doubts);

  /// From the doubts of all elements of the tensor, in any number of parts: the exact decisions. False: the guess was wrong, and measuring
  /// goes on from `decisions`.
  bool (*settle)(const Task& task, std::span<Doubts> parts, Decisions& decisions);

  /// results[i]: element doubts.elements[first + i] of the output, in output_dtype, for i below `count`. Thread-safe.
  void (*mend)(const Task& task, const Decisions& decisions, const Doubts& doubts, std::size_t first, std::size_t count,
               std::byte* results);
};

struct MethodRow {
  std::string_view name;
  std::string_view title;
  std::string_view reference;
  InputRule inputs;
  /// Made by planners alone (the variation of an assembly's experts): not a merge_method of configurations, not listed for users.
  bool internal = false;
  std::vector<ParameterRow> shared_parameters;
  std::vector<ParameterRow> model_parameters;

  /// Problems with parameter values that need no data ("t must be finite", "density + epsilon must be below 1"): sentences, or nothing.
  std::vector<std::string> (*check)(const Task& task) = nullptr;

  /// The next phase to measure, given what is decided; nothing when everything apply() needs is there. Pure, so every rank gets the same
  /// answer; with empty Decisions it says whether the task needs any measuring at all. Null: never measures.
  std::optional<PhaseShape> (*next_phase)(const Task& task, const Decisions& decisions) = nullptr;

  /// The most that measuring takes beside the inputs, with so many threads: histograms, lists of keys. Null: what the first phase's counts
  /// take.
  std::uint64_t (*scratch_bytes)(const Task& task, int threads) = nullptr;

  /// Measures one block: `elements` is exactly block `elements.first_element / kBlockElements`. Adds to `counts` (num_counts entries,
  /// shared by the blocks that one thread sees) and fills `sums` (empty on entry) when the phase has sums. Thread-safe.
  void (*measure)(const Task& task, const Decisions& decisions, const PhaseShape& phase, const Elements& elements,
                  std::span<std::uint64_t> counts, std::vector<double>& sums) = nullptr;

  /// Folds the sums of block `block` into `total` (empty before block 0). Called once per block, in block order. Null: element-wise
  /// addition.
  void (*fold)(const Task& task, const PhaseShape& phase, std::uint64_t block, std::span<const double> sums,
               std::vector<double>& total) = nullptr;

  /// Turns a phase's result into decisions. Tiny, float64, pure. May throw Error (a definition that has no value here).
  void (*decide)(const Task& task, const PhaseShape& phase, const PhaseResult& result, Decisions& decisions) = nullptr;

  /// Computes output elements [first, first + num) in output_dtype, rounded once. Any cut gives the same bytes. `output` has the alignment
  /// of its element and is not aliased by the inputs; it may be written with non-temporal stores. Thread-safe.
  void (*apply)(const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output) = nullptr;

  /// Null: the method is always measured first.
  const Speculation* speculation = nullptr;

  /// Whether apply and measure need whole rows (elements.first_element and num_elements are multiples of the row length). Null: never.
  bool (*needs_whole_rows)(const Task& task) = nullptr;
};

/// Every method, in the order that documentation lists them.
std::span<const MethodRow> method_table();

/// Null if unknown.
const MethodRow* find_method(std::string_view name);

/// Methods that users of mergekit know and a later version of moeweld brings: refused by name.
std::span<const std::string_view> announced_methods();

}  // namespace moeweld::merge
