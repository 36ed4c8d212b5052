#include "exec/units.h"

#include <algorithm>
#include <utility>

#include "exec/buffers.h"
#include "moeweld/base/checked.h"
#include "moeweld/merge/block_scales.h"

namespace moeweld::exec {

namespace {

/// Without measuring, any cut gives the same bytes; this one keeps vector loops whole.
constexpr std::uint64_t kFreeCutElements = 1 << 14;

class UnitCutter {
 public:
  UnitCutter(const plan::MergePlan& plan, std::size_t slot_bytes) : plan_(plan), slot_bytes_(slot_bytes) {}

  void add(std::uint32_t index, ElementRange range) {
    const plan::Operation& operation = plan_.operations[index];
    const std::uint64_t per_element = input_bytes_per_element(operation);
    const std::uint64_t slop = operation.sources.size() * 2 * kDirectAlignment;
    const std::uint64_t step = needs_measuring(operation) ? merge::kBlockElements : kFreeCutElements;
    std::uint64_t first = range.first;
    while (first < range.end) {
      const std::uint64_t room = slot_bytes_ > used_ + slop ? slot_bytes_ - used_ - slop : 0;
      std::uint64_t end = range.end;
      if (per_element != 0 && (range.end - first) * per_element > room) {
        end = std::min(range.end, round_down(first + room / per_element, step));
        // Better a fresh slot than a sliver of a large tensor in this one.
        if (!unit_.empty() && (end <= first || end - first < range.end - first)) {
          flush();
          continue;
        }
        if (end <= first) throw Error(ErrorCode::kInternal, "an input slot holds less than one block of a tensor", {}, operation.name);
      }
      unit_.push_back({.operation = index,
                       .first_element = first,
                       .num_elements = end - first,
                       .is_last = end == range.end,
                       .first_result = first,
                       .num_results = end - first});
      used_ += (end - first) * per_element + slop;
      first = end;
    }
  }

  /// Results `range` of a banded operation; `remembers(band)` says that its scales need no reading.
  template <class Remembers>
  void add_bands(std::uint32_t index, ElementRange range, Remembers&& remembers) {
    const plan::Operation& operation = plan_.operations[index];
    const plan::Operation& codes = operation.block_scaled ? operation : plan_.operations[operation.codes];
    const std::uint64_t per_element = input_bytes_per_element(codes);
    const std::uint64_t slop = codes.sources.size() * 2 * kDirectAlignment;
    const std::uint64_t band_elements = kScaleBlock * codes.task.shape.at(1);
    const std::uint64_t band_results = operation.block_scaled ? band_elements : merge::num_scale_blocks(codes.task.shape.at(1));
    const std::uint64_t end_band = (range.end + band_results - 1) / band_results;
    for (std::uint64_t band = range.first / band_results; band < end_band;) {
      Piece piece;
      piece.operation = index;
      piece.first_element = band * band_elements;
      piece.first_result = std::max(range.first, band * band_results);
      piece.is_remembered = remembers(band);
      while (band < end_band && remembers(band) == piece.is_remembered) {
        const std::uint64_t end = std::min(codes.task.elements(), (band + 1) * band_elements);
        if (!piece.is_remembered && used_ + (end - piece.first_element) * per_element + slop > slot_bytes_) {
          if (piece.num_elements != 0) break;
          if (unit_.empty()) throw Error(ErrorCode::kInternal, "an input slot holds less than one band of a matrix", {}, operation.name);
          flush();
          continue;
        }
        piece.num_elements = end - piece.first_element;
        piece.num_results = std::min(range.end, (band + 1) * band_results) - piece.first_result;
        ++band;
      }
      piece.is_last = band == end_band;
      unit_.push_back(piece);
      if (!piece.is_remembered) used_ += piece.num_elements * per_element + slop;
    }
  }

  void flush() {
    if (!unit_.empty()) units_.push_back(std::move(unit_));
    unit_.clear();
    used_ = 0;
  }

  std::vector<Unit> take() {
    flush();
    return std::move(units_);
  }

 private:
  const plan::MergePlan& plan_;
  const std::size_t slot_bytes_;
  std::vector<Unit> units_;
  Unit unit_;
  std::size_t used_ = 0;
};

}  // namespace

const std::vector<plan::SourceView>& sources_of(const plan::MergePlan& plan, std::uint32_t operation) {
  const plan::Operation& own = plan.operations[operation];
  return own.kind == plan::Operation::Kind::kBlockScales ? plan.operations[own.codes].sources : own.sources;
}

ElementRange elements_in(const plan::MergePlan& plan, const plan::Operation& operation, const plan::FileRun& run) {
  const plan::Destination place = plan::destination(plan, operation);
  const std::uint64_t element_size = size_bytes(operation.result_dtype());
  const std::uint64_t begin = std::max(run.begin, place.begin);
  const std::uint64_t end = std::min(run.end, place.begin + place.size_bytes);
  if (place.file != run.file || begin >= end) return {};
  return {(begin - place.begin) / element_size, (end - place.begin) / element_size};
}

std::uint32_t first_operation_in(const plan::MergePlan& plan, const plan::FileRun& run) {
  const auto operation = std::partition_point(plan.operations.begin(), plan.operations.end(), [&](const plan::Operation& candidate) {
    const plan::Destination place = plan::destination(plan, candidate);
    return place.file < run.file || (place.file == run.file && place.begin + place.size_bytes <= run.begin);
  });
  return static_cast<std::uint32_t>(operation - plan.operations.begin());
}

std::vector<Unit> cut_units(const plan::MergePlan& plan, std::span<const plan::FileRun> runs, std::size_t slot_bytes,
                            std::optional<std::uint64_t> stretch_begin) {
  UnitCutter cutter(plan, slot_bytes);
  for (const plan::FileRun& run : runs) {
    const plan::FileRun stretch{run.file, std::exchange(stretch_begin, std::nullopt).value_or(run.begin), run.end};
    auto operation = plan.operations.begin() + first_operation_in(plan, run);
    for (; operation != plan.operations.end(); ++operation) {
      const plan::Destination place = plan::destination(plan, *operation);
      if (place.file != run.file || place.begin >= run.end) break;
      const auto index = static_cast<std::uint32_t>(operation - plan.operations.begin());
      if (!operation->is_banded()) {
        cutter.add(index, elements_in(plan, *operation, run));
        continue;
      }
      // Codes that come before their scales in the same stretch are computed before them.
      ElementRange known;
      if (operation->kind == plan::Operation::Kind::kBlockScales && operation->codes < index) {
        known = elements_in(plan, plan.operations[operation->codes], stretch);
      }
      const std::uint64_t band_elements = kScaleBlock * operation->task.shape.at(1);
      cutter.add_bands(index, elements_in(plan, *operation, run), [&](std::uint64_t band) {
        return known.first < std::min(known.end, (band + 1) * band_elements) && band * band_elements < known.end;
      });
    }
  }
  return cutter.take();
}

std::vector<Unit> cut_blocks(const plan::MergePlan& plan, std::uint32_t operation, std::uint64_t first_block, std::uint64_t end_block,
                             std::size_t slot_bytes) {
  UnitCutter cutter(plan, slot_bytes);
  const std::uint64_t elements = plan.operations[operation].task.elements();
  cutter.add(operation, {std::min(first_block * merge::kBlockElements, elements), std::min(end_block * merge::kBlockElements, elements)});
  return cutter.take();
}

}  // namespace moeweld::exec
