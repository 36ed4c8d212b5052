#include "exec/units.h"

#include <algorithm>

#include "exec/buffers.h"
#include "moeweld/base/checked.h"

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
      unit_.push_back({index, first, end - first, end == range.end});
      used_ += (end - first) * per_element + slop;
      first = end;
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

ElementRange elements_in(const plan::MergePlan& plan, const plan::Operation& operation, const plan::FileRun& run) {
  const plan::Destination place = plan::destination(plan, operation);
  const std::uint64_t element_size = size_bytes(operation.task.output_dtype);
  const std::uint64_t begin = std::max(run.begin, place.begin);
  const std::uint64_t end = std::min(run.end, place.begin + place.size_bytes);
  if (place.file != run.file || begin >= end) return {};
  return {(begin - place.begin) / element_size, (end - place.begin) / element_size};
}

std::vector<Unit> cut_units(const plan::MergePlan& plan, std::span<const plan::FileRun> runs, std::size_t slot_bytes) {
  UnitCutter cutter(plan, slot_bytes);
  for (const plan::FileRun& run : runs) {
    auto operation = std::partition_point(plan.operations.begin(), plan.operations.end(), [&](const plan::Operation& candidate) {
      const plan::Destination place = plan::destination(plan, candidate);
      return place.file < run.file || (place.file == run.file && place.begin + place.size_bytes <= run.begin);
    });
    for (; operation != plan.operations.end(); ++operation) {
      const plan::Destination place = plan::destination(plan, *operation);
      if (place.file != run.file || place.begin >= run.end) break;
      cutter.add(static_cast<std::uint32_t>(operation - plan.operations.begin()), elements_in(plan, *operation, run));
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
