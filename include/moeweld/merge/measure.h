#pragma once
/// Runs a method's phases over data that is in memory. Streaming and sharing between ranks are exec's.

#include <functional>
#include <map>
#include <vector>

#include "moeweld/merge/method.h"

namespace moeweld::merge {

/// One phase's contribution of some blocks: counts added up, sums kept apart per block until all blocks are there.
struct PhasePartial {
  std::vector<std::uint64_t> counts;
  std::vector<std::uint64_t> blocks;            ///< ascending
  std::vector<std::vector<double>> block_sums;  ///< one per entry of blocks, when the phase has sums
};

template <class Archive>
void serialize(Archive& archive, PhasePartial& partial) {
  archive(partial.counts, partial.blocks, partial.block_sums);
}

/// Measures blocks [first_block, first_block + elements' blocks) with OpenMP and merges them into `partial`. `elements.first_element` is a
/// multiple of kBlockElements; num_elements is one too, or ends at the tensor's end. Same result for any number of threads.
void measure_blocks(const MethodRow& method, const Task& task, const Decisions& decisions, const PhaseShape& phase,
                    const Elements& elements, PhasePartial& partial);

/// Folds partials (of any ranks, each block in exactly one of them) in block order and lets the method decide. Throws Error(kInternal) when
/// a block is missing or there twice.
void decide_phase(const MethodRow& method, const Task& task, const PhaseShape& phase, std::vector<PhasePartial> partials,
                  Decisions& decisions);

/// All phases over a whole tensor in memory.
Decisions measure_all(const MethodRow& method, const Task& task, const Elements& whole);

/// apply() on omp_get_max_threads() threads over slices of the elements. `output` receives elements.num_elements elements.
void apply_elements(const MethodRow& method, const Task& task, const Decisions& decisions, const Elements& elements, std::byte* output);

/// Speculation::apply() on as many threads as there are `doubts`, at least one; doubts[t] are those of thread t.
void apply_guess(const MethodRow& method, const Task& task, const Decisions& guess, const Elements& elements, std::byte* output,
                 std::span<Doubts> doubts);

/// Speculation::mend() on several threads: calls put(element, result) for every doubt, from any thread, results being one element of the
/// output each. `put` must not throw.
void mend_doubts(const MethodRow& method, const Task& task, const Decisions& decisions, std::span<const Doubts> parts,
                 const std::function<void(std::span<const std::uint64_t> elements, const std::byte* results)>& put);

/// Raises a problem for each NaN or infinity count a caller wants to know: number of non-finite elements of one input.
std::uint64_t count_non_finite(DType dtype, const std::byte* data, std::size_t num_elements);

}  // namespace moeweld::merge
