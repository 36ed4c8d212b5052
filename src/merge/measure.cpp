#include "moeweld/merge/measure.h"

#include <omp.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>

#include "merge/first_exception.h"
#include "moeweld/base/error.h"
#include "moeweld/base/trace.h"

namespace moeweld::merge {

namespace {

/// Elements of one thread's share of apply(): a few hundred KiB of traffic, much more than a task costs to hand out.
constexpr std::uint64_t kApplyElements = std::uint64_t{1} << 16;

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
  const auto blocks = static_cast<std::int64_t>(num_blocks(elements.num_elements));
  const std::size_t first_slot = partial.blocks.size();
  partial.counts.resize(phase.num_counts);
  for (std::int64_t block = 0; block < blocks; ++block) partial.blocks.push_back(first_block + static_cast<std::uint64_t>(block));
  if (phase.has_sums) partial.block_sums.resize(partial.blocks.size());

  FirstException failure;
  std::mutex merging;
#pragma omp parallel if (blocks > 1)
  {
    const trace::Span span(trace::Kind::kCombine, "measure");
    std::vector<std::uint64_t>* counts = nullptr;
    failure.guard([&] { counts = &scratch_counts(phase.num_counts); });
    std::vector<double> no_sums;
#pragma omp for schedule(dynamic) nowait
    for (std::int64_t block = 0; block < blocks; ++block) {
      failure.guard([&] {
        if (counts == nullptr) return;
        const std::uint64_t offset = static_cast<std::uint64_t>(block) * kBlockElements;
        const std::vector<const std::byte*> inputs = inputs_at(task, elements, offset);
        const Elements part{.first_element = elements.first_element + offset,
                            .num_elements = std::min(kBlockElements, elements.num_elements - offset),
                            .inputs = inputs};
        std::vector<double>& sums = phase.has_sums ? partial.block_sums[first_slot + static_cast<std::size_t>(block)] : no_sums;
        method.measure(task, decisions, phase, part, *counts, sums);
      });
    }
    if (counts != nullptr && phase.num_counts != 0) {
      const std::lock_guard lock(merging);
      for (std::size_t i = 0; i < phase.num_counts; ++i) partial.counts[i] += (*counts)[i];
    }
  }
  failure.rethrow_if_any();
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

/// Calls work(slice, output) for slices of the elements, on all threads.
template <class Work>
void for_slices(const Task& task, const Elements& elements, std::byte* output, Work&& work) {
  const std::size_t element_size = size_bytes(task.output_dtype);
  const auto slices = static_cast<std::int64_t>((elements.num_elements + kApplyElements - 1) / kApplyElements);
  FirstException failure;
#pragma omp parallel if (slices > 1)
  {
    const trace::Span span(trace::Kind::kCombine, "apply");
#pragma omp for schedule(dynamic) nowait
    for (std::int64_t slice = 0; slice < slices; ++slice) {
      failure.guard([&] {
        const std::uint64_t offset = static_cast<std::uint64_t>(slice) * kApplyElements;
        const std::vector<const std::byte*> inputs = inputs_at(task, elements, offset);
        work(Elements{.first_element = elements.first_element + offset,
                      .num_elements = std::min<std::size_t>(kApplyElements, elements.num_elements - offset),
                      .inputs = inputs},
             output + offset * element_size);
      });
    }
  }
  failure.rethrow_if_any();
}

}  // namespace

void apply_elements(const MethodRow& method, const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output) {
  for_slices(task, elements, output, [&](const Elements& slice, std::byte* target) { method.apply(task, decisions, slice, target); });
}

void apply_guess(const MethodRow& method, const Task& task, const Decisions& guess, const Elements& elements, std::byte* output,
                 std::span<Doubts> doubts) {
  for_slices(task, elements, output, [&](const Elements& slice, std::byte* target) {
    method.speculation->apply(task, guess, slice, target, doubts[static_cast<std::size_t>(omp_get_thread_num())]);
  });
}

void mend_doubts(const MethodRow& method, const Task& task, const Decisions& decisions, std::span<const Doubts> parts,
                 const std::function<void(std::span<const std::uint64_t> elements, const std::byte* results)>& put) {
  constexpr std::size_t kDoubtsAtOnce = 8192;
  FirstException failure;
  for (const Doubts& part : parts) {
    const auto slices = static_cast<std::int64_t>((part.elements.size() + kDoubtsAtOnce - 1) / kDoubtsAtOnce);
#pragma omp parallel for schedule(dynamic) if (slices > 1)
    for (std::int64_t slice = 0; slice < slices; ++slice) {
      failure.guard([&] {
        const std::size_t first = static_cast<std::size_t>(slice) * kDoubtsAtOnce;
        const std::size_t count = std::min(kDoubtsAtOnce, part.elements.size() - first);
        std::vector<std::byte> results(count * size_bytes(task.output_dtype));
        method.speculation->mend(task, decisions, part, first, count, results.data());
        put(std::span(part.elements).subspan(first, count), results.data());
      });
    }
  }
  failure.rethrow_if_any();
}

}  // namespace moeweld::merge
