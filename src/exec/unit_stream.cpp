#include "exec/unit_stream.h"

#include <algorithm>
#include <map>
#include <utility>

#include "exec/buffers.h"
#include "exec/speculation.h"
#include "moeweld/base/checked.h"

namespace moeweld::exec {

namespace {

/// More than this is not held where reading it again is only a copy in memory: touching new memory costs that much or, in a virtual
/// machine, several times as much (docs/decisions/014).
constexpr std::uint64_t kMostHeldOfCached = 64 * kMiB;

}  // namespace

void UnitStream::add(std::span<const plan::FileRun> runs) {
  for (const plan::FileRun& run : runs) {
    if (!pending_.empty() && pending_.back().file == run.file && pending_.back().end == run.begin) {
      pending_.back().end = run.end;
    } else {
      pending_.push_back(run);
    }
  }
}

std::optional<UnitStream::Batch> UnitStream::next() {
  std::vector<plan::FileRun> runs = std::exchange(pending_, {});
  if (!closed_ && !runs.empty()) {
    plan::FileRun& last = runs.back();
    const std::uint64_t end = end_of_whole(last);
    if (end != last.end) pending_.push_back({last.file, end, last.end});
    last.end = end;
    if (last.begin == end) runs.pop_back();
  }
  if (runs.empty()) return std::nullopt;
  std::optional<std::uint64_t> stretch_begin;
  if (stretch_ && stretch_->file == runs.front().file && stretch_->end == runs.front().begin) stretch_begin = stretch_->begin;
  stretch_ = runs.back();
  if (stretch_begin && runs.size() == 1) stretch_->begin = *stretch_begin;
  return cut(runs, stretch_begin);
}

std::uint64_t UnitStream::end_of_whole(const plan::FileRun& run) const {
  const std::uint32_t index = first_operation_in(pipeline_.plan, {run.file, run.end, run.end});
  if (index == pipeline_.plan.operations.size()) return run.end;
  const plan::Operation& operation = pipeline_.plan.operations[index];
  const plan::Destination place = plan::destination(pipeline_.plan, operation);
  if (place.file != run.file || place.begin >= run.end) return run.end;
  // What begins before the run is not this rank's alone, and bands are not held: both are measured before they are applied.
  if (place.begin < run.begin || operation.is_banded() || !needs_measuring(operation) || pipeline_.decided.contains(index)) return run.end;
  return place.begin;
}

UnitStream::Batch UnitStream::cut(std::span<const plan::FileRun> runs, std::optional<std::uint64_t> stretch_begin) {
  for (const std::uint32_t index : find_speculative(pipeline_.plan, runs, pipeline_.sizes)) {
    // For statistics: under a guess the inputs are gone when the result is known.
    if (!pipeline_.options.gather_statistics && !pipeline_.decided.contains(index)) pipeline_.speculative.insert(index);
  }
  Batch batch;
  batch.units = cut_units(pipeline_.plan, runs, pipeline_.sizes.slot_bytes, stretch_begin);
  // Two slots stay free for what is read while the tensor is held; its edges may take a slot more than its bytes.
  const std::size_t slots_to_hold = pipeline_.sizes.num_slots - 2;
  struct Part {
    std::size_t num_units = 0;
    std::uint64_t num_elements = 0;
  };
  std::map<std::uint32_t, Part> parts;
  for (Unit& unit : batch.units) {
    for (Piece& piece : unit) {
      piece.is_guessed = pipeline_.speculative.contains(piece.operation);
      const plan::Operation& operation = pipeline_.plan.operations[piece.operation];
      if (!operation.is_banded()) {
        Part& part = parts[piece.operation];
        ++part.num_units;
        part.num_elements += piece.num_elements;
      } else if (!piece.is_remembered) {
        // Bands are not held: what decides them is measured before.
        parts[operation.block_scaled ? piece.operation : operation.codes].num_units = slots_to_hold + 1;
      }
    }
  }
  std::set<std::uint32_t> held;
  std::set<std::uint32_t> measured_on_the_way;
  for (const auto& [index, part] : parts) {
    const plan::Operation& operation = pipeline_.plan.operations[index];
    if (!needs_measuring(operation) || pipeline_.decided.contains(index) || pipeline_.speculative.contains(index)) continue;
    if (measured_.contains(index)) continue;
    const bool fits = part.num_units <= slots_to_hold && part.num_elements == operation.task.elements();
    const bool in_one_phase = pipeline_.method_of(operation).next_phase(operation.task, {})->is_only;
    if (fits && !(in_one_phase && is_cheap_to_read_twice(operation))) {
      held.insert(index);
    } else if (in_one_phase && !operation.is_banded()) {
      measured_on_the_way.insert(index);
    } else {
      batch.to_measure.push_back(index);
    }
  }
  for (Unit& unit : batch.units) {
    for (Piece& piece : unit) piece.is_held = held.contains(piece.operation);
  }
  if (!measured_on_the_way.empty()) add_measuring(measured_on_the_way, batch.units);
  measured_.merge(measured_on_the_way);
  return batch;
}

void UnitStream::add_measuring(const std::set<std::uint32_t>& operations, std::vector<Unit>& units) const {
  std::set<std::uint32_t> to_come = operations;
  std::vector<Unit> all;
  for (Unit& unit : units) {
    for (const Piece& piece : unit) {
      if (to_come.erase(piece.operation) == 0) continue;
      const std::uint64_t num_blocks = merge::num_blocks(pipeline_.plan.operations[piece.operation].task.elements());
      for (Unit& measuring : cut_blocks(pipeline_.plan, piece.operation, 0, num_blocks, pipeline_.sizes.slot_bytes)) {
        for (Piece& part : measuring) part.only_measures = true;
        all.push_back(std::move(measuring));
      }
    }
    all.push_back(std::move(unit));
  }
  units = std::move(all);
}

bool UnitStream::is_cheap_to_read_twice(const plan::Operation& operation) const {
  if (operation.task.elements() * input_bytes_per_element(operation) <= kMostHeldOfCached) return false;
  return std::all_of(operation.sources.begin(), operation.sources.end(), [&](const plan::SourceView& source) {
    return source.kind == plan::SourceView::Kind::kBytes &&
           pipeline_.files.open(source.file)->is_cached(source.begin, source.num_elements * size_bytes(source.dtype));
  });
}

}  // namespace moeweld::exec
