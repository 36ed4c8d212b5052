#include "moeweld/merge/measure.h"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <limits>

#include "moeweld/base/error.h"

namespace moeweld::merge {
namespace {

/// The first exception of a parallel region: none may leave it.
class CaughtException {
 public:
  template <class Action>
  void guard(Action&& action) noexcept {
    try {
      action();
    } catch (...) {
#pragma omp critical(moeweld_caught_exception)
      if (!exception_) exception_ = std::current_exception();
    }
  }
  void rethrow_if_any() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  std::exception_ptr exception_;
};

/// Elements [offset, offset + num) of a run, with pointers in `storage`.
Elements part_of(const Task& task, const Elements& elements, std::uint64_t offset, std::size_t num, std::vector<const std::byte*>& storage) {
  storage.resize(elements.inputs.size());
  for (std::size_t i = 0; i < storage.size(); ++i) storage[i] = elements.inputs[i] + offset * size_bytes(task.inputs[i].dtype);
  return {elements.first_element + offset, num, storage};
}

int threads_for(std::uint64_t pieces) {
  return static_cast<int>(std::min<std::uint64_t>(static_cast<std::uint64_t>(std::max(1, omp_get_max_threads())), std::max<std::uint64_t>(1, pieces)));
}

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorCode::kInternal, message); }

}  // namespace

void measure_blocks(const MethodRow& method, const Task& task, const Decisions& decisions, const PhaseShape& phase, const Elements& elements,
                    PhasePartial& partial) {
  if (elements.first_element % kBlockElements != 0) fail("a measurement does not start at a block border");
  const std::uint64_t blocks = num_blocks(elements.num_elements);
  const std::uint64_t first_block = elements.first_element / kBlockElements;
  partial.counts.resize(phase.num_counts);
  std::vector<std::vector<double>> sums(blocks);
  CaughtException caught;
  const int num_threads = threads_for(blocks);
#pragma omp parallel num_threads(num_threads)
  {
    std::vector<std::uint64_t> own;
    std::vector<const std::byte*> pointers;
    caught.guard([&] {
      if (omp_get_num_threads() > 1) own.resize(phase.num_counts);
    });
    const bool shares = omp_get_num_threads() > 1;
#pragma omp for schedule(dynamic)
    for (std::uint64_t block = 0; block < blocks; ++block) {
      caught.guard([&] {
        const std::uint64_t offset = block * kBlockElements;
        const auto num = static_cast<std::size_t>(std::min<std::uint64_t>(kBlockElements, elements.num_elements - offset));
        const Elements part = part_of(task, elements, offset, num, pointers);
        if (shares && own.size() != phase.num_counts) return;  // the allocation failed and is reported
        method.measure(task, decisions, phase, part, shares ? own : partial.counts, sums[block]);
      });
    }
#pragma omp critical(moeweld_measure_counts)
    for (std::size_t i = 0; i < own.size(); ++i) partial.counts[i] += own[i];
  }
  caught.rethrow_if_any();
  for (std::uint64_t block = 0; block < blocks; ++block) partial.blocks.push_back(first_block + block);
  if (phase.has_sums) std::move(sums.begin(), sums.end(), std::back_inserter(partial.block_sums));
}

void decide_phase(const MethodRow& method, const Task& task, const PhaseShape& phase, std::vector<PhasePartial> partials, Decisions& decisions) {
  const std::uint64_t blocks = num_blocks(task.elements());
  PhaseResult result;
  result.counts.resize(phase.num_counts);
  std::vector<const std::vector<double>*> sums(blocks);
  std::vector<bool> seen(blocks);
  std::uint64_t num_seen = 0;
  for (const PhasePartial& partial : partials) {
    if (phase.has_sums && partial.block_sums.size() != partial.blocks.size()) fail("a measurement has blocks without sums");
    if (!partial.counts.empty() && partial.counts.size() != phase.num_counts) fail("a measurement has counts of another phase");
    for (std::size_t i = 0; i < partial.counts.size(); ++i) result.counts[i] += partial.counts[i];
    for (std::size_t i = 0; i < partial.blocks.size(); ++i) {
      const std::uint64_t block = partial.blocks[i];
      if (block >= blocks || seen[block]) fail("block " + std::to_string(block) + " was measured twice or does not exist");
      seen[block] = true;
      ++num_seen;
      if (phase.has_sums) sums[block] = &partial.block_sums[i];
    }
  }
  if (num_seen != blocks) fail(std::to_string(blocks - num_seen) + " blocks of a tensor were not measured");
  for (std::uint64_t block = 0; phase.has_sums && block < blocks; ++block) {
    if (method.fold != nullptr) {
      method.fold(task, phase, block, *sums[block], result.sums);
      continue;
    }
    if (result.sums.size() < sums[block]->size()) result.sums.resize(sums[block]->size());
    for (std::size_t i = 0; i < sums[block]->size(); ++i) result.sums[i] += (*sums[block])[i];
  }
  method.decide(task, phase, result, decisions);
}

Decisions measure_all(const MethodRow& method, const Task& task, const Elements& whole) {
  Decisions decisions;
  if (method.next_phase == nullptr) return decisions;
  while (const auto phase = method.next_phase(task, decisions)) {
    std::vector<PhasePartial> partials(1);
    measure_blocks(method, task, decisions, *phase, whole, partials[0]);
    decide_phase(method, task, *phase, std::move(partials), decisions);
  }
  return decisions;
}

void apply_elements(const MethodRow& method, const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output) {
  std::uint64_t slice = std::uint64_t{1} << 16;
  if (method.needs_whole_rows != nullptr && method.needs_whole_rows(task)) {
    const std::uint64_t row = std::max<std::uint64_t>(1, row_length(task.shape));
    slice = std::max<std::uint64_t>(1, slice / row) * row;
  }
  const std::uint64_t slices = (elements.num_elements + slice - 1) / slice;
  const std::size_t output_bytes = size_bytes(task.output_dtype);
  CaughtException caught;
  const int num_threads = threads_for(slices);
#pragma omp parallel num_threads(num_threads)
  {
    std::vector<const std::byte*> pointers;
#pragma omp for schedule(static)
    for (std::uint64_t i = 0; i < slices; ++i) {
      caught.guard([&] {
        const std::uint64_t offset = i * slice;
        const auto num = static_cast<std::size_t>(std::min<std::uint64_t>(slice, elements.num_elements - offset));
        method.apply(task, decisions, part_of(task, elements, offset, num, pointers), output + offset * output_bytes);
      });
    }
  }
  caught.rethrow_if_any();
}

}  // namespace moeweld::merge
