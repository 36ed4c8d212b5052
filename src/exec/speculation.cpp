#include "exec/speculation.h"

#include <algorithm>

#include "exec/unit_reader.h"
#include "moeweld/base/checked.h"

namespace moeweld::exec {

namespace {

constexpr std::uint64_t kChunks = 16;
constexpr std::uint64_t kChunkMultiple = 64;
/// Windows that are on their way to the disk while others are held, and the one that the tensor starts in.
constexpr std::size_t kWindowsBeside = 3;
/// A guess that fails is measured by a second reader while the first holds its slots.
constexpr std::size_t kSlotsBeside = kReadAheadUnits + 2 * kReaderThreads + 2;

}  // namespace

std::vector<Piece> sample_chunks(const plan::MergePlan& plan, std::uint32_t operation) {
  const merge::Task& task = plan.operations[operation].task;
  const merge::MethodRow& method = merge::method_table()[plan.operations[operation].method];
  const std::uint64_t wanted = std::min(method.speculation->sample_elements(task), task.elements());
  const std::uint64_t chunk = std::max(round_down(wanted / kChunks, kChunkMultiple), kChunkMultiple);
  const std::uint64_t stride = task.elements() / kChunks;
  std::vector<Piece> chunks;
  for (std::uint64_t i = 0; i < kChunks; ++i) {
    // In the middle of its part of the tensor.
    const std::uint64_t first = round_down(i * stride + (stride - std::min(stride, chunk)) / 2, kChunkMultiple);
    chunks.push_back({operation, first, chunk, false});
  }
  return chunks;
}

bool may_speculate(const plan::Operation& operation, const BufferSizes& sizes) {
  if (!needs_measuring(operation) || operation.block_scaled) return false;
  const merge::MethodRow& method = merge::method_table()[operation.method];
  if (method.speculation == nullptr || method.speculation->sample_elements(operation.task) == 0) return false;
  const std::uint64_t result_bytes = operation.task.elements() * size_bytes(operation.task.output_dtype);
  return result_bytes / sizes.window_bytes + 1 + kWindowsBeside <= sizes.num_windows && sizes.num_slots >= kSlotsBeside;
}

std::vector<std::uint32_t> find_speculative(const plan::MergePlan& plan, std::span<const plan::FileRun> runs, const BufferSizes& sizes) {
  std::vector<std::uint32_t> result;
  for (std::uint32_t i = 0; i < plan.operations.size(); ++i) {
    const plan::Operation& operation = plan.operations[i];
    const plan::Destination place = plan::destination(plan, operation);
    const bool is_whole = std::any_of(runs.begin(), runs.end(), [&](const plan::FileRun& run) {
      return run.file == place.file && run.begin <= place.begin && place.begin + place.size_bytes <= run.end;
    });
    if (is_whole && may_speculate(operation, sizes)) result.push_back(i);
  }
  return result;
}

}  // namespace moeweld::exec
