#include "moeweld/merge/measure.h"

#include <omp.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "moeweld/base/error.h"
#include "moeweld/base/thread_team.h"
#include "moeweld/base/trace.h"

namespace moeweld::merge {

namespace {

/// Elements of one thread's share of apply(): a few hundred KiB of traffic, much more than a task costs to hand out.
constexpr std::uint64_t kApplyElements = std::uint64_t{1} << 16;

/// The number that omp_set_num_threads() set for the calling thread; kernels do not use OpenMP's own regions.
void for_each_task(std::size_t count, const std::function<void(std::size_t index, std::size_t worker)>& work) {
  for_each_index(omp_get_max_threads(), count, work);
}

/// Inputs of a part of `elements` that starts `offset` elements later.
std::vector<const std::byte*> inputs_at(const Task& task, const Elements& elements, std::uint64_t offset) {
  std::vector<const std::byte*> result(elements.inputs.begin(), elements.inputs.end());
  for (std::size_t i = 0; i < result.size(); ++i) result[i] += offset * size_bytes(task.inputs[i].dtype);
  return result;
}

/// Threads' counts, kept between calls: fresh pages for every unit would cost more than the counting.
std::vector<std::uint64_t>& scratch_counts(std::size_t size) {
  thread_local std::vector<std::uint64_t> counts;
  counts.assign(size, 0);
  return counts;
}

void add_element_wise(std::span<const double> sums, std::vector<double>& total) {
  if (total.empty()) total.assign(sums.size(), 0.0);
  for (std::size_t i = 0; i < sums.size(); ++i) total[i] += sums[i];
}

}  // namespace

void measure_blocks(const MethodRow& method, const Task& task, const Decisions& decisions, const PhaseShape& phase,
                    const Elements& elements, PhasePartial& partial) {
  const std::uint64_t first_block = elements.first_element / kBlockElements;
  const std::uint64_t blocks = num_blocks(elements.num_elements);
  const std::size_t first_slot = partial.blocks.size();
  partial.counts.resize(phase.num_counts);
  for (std::uint64_t block = 0; block < blocks; ++block) partial.blocks.push_back(first_block + block);
  if (phase.has_sums) partial.block_sums.resize(partial.blocks.size());

  // Each thread's, once it has begun; it leaves them alone after its last block.
  std::vector<std::vector<std::uint64_t>*> counts(static_cast<std::size_t>(omp_get_max_threads()), nullptr);
  std::vector<double> no_sums;
  for_each_task(blocks, [&](std::size_t block, std::size_t worker) {
    const trace::Span span(trace::Kind::kCombine, "measure");
    if (counts[worker] == nullptr) counts[worker] = &scratch_counts(phase.num_counts);
    const std::uint64_t offset = block * kBlockElements;
    const std::vector<const std::byte*> inputs = inputs_at(task, elements, offset);
    const Elements part{.first_element = elements.first_element + offset,
                        .num_elements = std::min(kBlockElements, elements.num_elements - offset),
                        .inputs = inputs};
    std::vector<double>& sums = phase.has_sums ? partial.block_sums[first_slot + block] : no_sums;
    method.measure(task, decisions, phase, part, *counts[worker], sums);
  });
  for (const std::vector<std::uint64_t>* own : counts) {
    if (own == nullptr) continue;
    for (std::size_t i = 0; i < phase.num_counts; ++i) partial.counts[i] += (*own)[i];
  }
}

void decide_phase(const MethodRow& method, const Task& task, const PhaseShape& phase, std::vector<PhasePartial> partials,
                  Decisions& decisions) {
  PhaseResult result;
  result.counts.assign(phase.num_counts, 0);
  const std::uint64_t blocks = num_blocks(task.elements());
  std::vector<const std::vector<double>*> sums(blocks, nullptr);
  std::vector<bool> seen(blocks, false);
  for (const PhasePartial& partial : partials) {
    for (std::size_t i = 0; i < std::min(partial.counts.size(), phase.num_counts); ++i) result.counts[i] += partial.counts[i];
    for (std::size_t i = 0; i < partial.blocks.size(); ++i) {
      const std::uint64_t block = partial.blocks[i];
      if (block >= blocks || seen[block]) {
        throw Error(ErrorCode::kInternal,
                    "block " + std::to_string(block) + " of " + std::to_string(blocks) + " was measured twice or does not exist");
      }
      seen[block] = true;
      if (phase.has_sums) sums[block] = &partial.block_sums.at(i);
    }
  }
  for (std::uint64_t block = 0; block < blocks; ++block) {
    if (!seen[block])
      throw Error(ErrorCode::kInternal, "block " + std::to_string(block) + " of " + std::to_string(blocks) + " was not measured");
    if (!phase.has_sums) continue;
    if (method.fold != nullptr) {
      method.fold(task, phase, block, *sums[block], result.sums);
    } else {
      add_element_wise(*sums[block], result.sums);
    }
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

namespace {

/// Calls work(slice, output, worker) for slices of the elements, on so many threads.
template <class Work>
void for_slices(int num_threads, const Task& task, const Elements& elements, std::byte* output, Work&& work) {
  const std::size_t element_size = size_bytes(task.output_dtype);
  for_each_index(num_threads, (elements.num_elements + kApplyElements - 1) / kApplyElements, [&](std::size_t slice, std::size_t worker) {
    const trace::Span span(trace::Kind::kCombine, "apply");
    const std::uint64_t offset = slice * kApplyElements;
    const std::vector<const std::byte*> inputs = inputs_at(task, elements, offset);
    work(Elements{.first_element = elements.first_element + offset,
                  .num_elements = std::min<std::size_t>(kApplyElements, elements.num_elements - offset),
                  .inputs = inputs},
         output + offset * element_size, worker);
  });
}

}  // namespace

void apply_elements(const MethodRow& method, const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output) {
  for_slices(omp_get_max_threads(), task, elements, output,
             [&](const Elements& slice, std::byte* target, std::size_t) { method.apply(task, decisions, slice, target); });
}

void apply_guess(const MethodRow& method, const Task& task, const Decisions& guess, const Elements& elements, std::byte* output,
                 std::span<Doubts> doubts) {
  for_slices(static_cast<int>(doubts.size()), task, elements, output, [&](const Elements& slice, std::byte* target, std::size_t worker) {
    method.speculation->apply(task, guess, slice, target, doubts[worker]);
  });
}

void mend_doubts(const MethodRow& method, const Task& task, const Decisions& decisions, std::span<const Doubts> parts,
                 const std::function<void(std::span<const std::uint64_t> elements, const std::byte* results)>& put) {
  constexpr std::size_t kDoubtsAtOnce = 8192;
  for (const Doubts& part : parts) {
    for_each_task((part.elements.size() + kDoubtsAtOnce - 1) / kDoubtsAtOnce, [&](std::size_t slice, std::size_t) {
      const std::size_t first = slice * kDoubtsAtOnce;
      const std::size_t count = std::min(kDoubtsAtOnce, part.elements.size() - first);
      std::vector<std::byte> results(count * size_bytes(task.output_dtype));
      method.speculation->mend(task, decisions, part, first, count, results.data());
      put(std::span(part.elements).subspan(first, count), results.data());
    });
  }
}

}  // namespace moeweld::merge
