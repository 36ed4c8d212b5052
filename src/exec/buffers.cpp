#include "exec/buffers.h"

#include <algorithm>

#include "exec/kept_reads.h"
#include "exec/speculation.h"
#include "exec/unit_reader.h"
#include "exec/view_reader.h"
#include "moeweld/base/checked.h"
#include "moeweld/base/text.h"
#include "moeweld/base/trace.h"
#include "moeweld/exec/alignment.h"
#include "moeweld/exec/execute.h"
#include "moeweld/merge/method.h"

namespace moeweld::exec {

namespace {

/// Libraries, stacks and what the allocator keeps for itself.
constexpr std::uint64_t kProgramBytes = 40 * kMiB;
constexpr std::size_t kLargestSlotBytes = 6 * kMiB;
constexpr std::size_t kLargestWindowBytes = 4 * kMiB;
/// At least; a few more where memory allows. Those that wait for the disk keep none busier: each is only memory touched for the first time.
constexpr std::size_t kWindows = 4;
constexpr std::size_t kMostWindows = 10;
/// Where results are held instead of inputs.
constexpr std::size_t kMostWindowsHeld = 96;
constexpr std::size_t kFewestSlots = 3;

/// Nodes of the trees; most operations read plain bytes and have none.
std::uint64_t view_bytes(const plan::SourceView& view) {
  std::uint64_t sum = view.children.size() * sizeof view;
  for (const plan::SourceView& child : view.children) sum += view_bytes(child);
  return sum;
}

std::uint64_t plan_memory_bytes(const plan::MergePlan& plan) {
  std::uint64_t sum = 0;
  for (const plan::Operation& operation : plan.operations) {
    sum += sizeof operation + operation.name.size() + operation.sources.size() * sizeof(plan::SourceView) +
           operation.task.inputs.size() * (sizeof(merge::TaskInput) + 32) + operation.task.parameters.size() * sizeof(double) + 64;
    for (const plan::SourceView& source : operation.sources) sum += view_bytes(source);
  }
  for (const plan::PlannedTensor& tensor : plan.tensors) sum += sizeof tensor + tensor.name.size() + 32;
  for (const plan::PlannedOutputFile& file : plan.output_files) sum += file.header.size();
  for (const plan::DroppedTensor& tensor : plan.dropped) sum += sizeof tensor + tensor.name.size();
  for (const plan::AuxiliaryFile& file : plan.auxiliary_files) sum += file.content.size();
  sum *= 2;  // as sent and as decoded
  for (const plan::Slot& slot : plan.slots) sum += slot.size_bytes();
  sum += plan.num_orders * sizeof(std::uint32_t);
  return sum;
}

struct Needs {
  std::uint64_t reserve_bytes = 0;
  std::size_t smallest_slot_bytes = 0;
  std::uint64_t prepare_bytes = 0;  ///< before there are slots and windows
  bool holds_results = false;       ///< some operation may be applied under a guess
};

Needs needs_of(const plan::MergePlan& plan, int threads, bool gather_statistics) {
  Needs needs;
  std::uint64_t measuring_bytes = 0;
  std::uint64_t scratch_bytes = 0;
  std::uint64_t band_bytes = 0;
  for (const plan::Operation& operation : plan.operations) {
    // Every extent is widened to the direct I/O alignment at both ends.
    const std::uint64_t slop = (operation.sources.size() + 1) * 2 * kDirectAlignment;
    std::uint64_t elements = 1 << 14;
    if (needs_measuring(operation)) {
      elements = merge::kBlockElements;
      const merge::MethodRow& method = merge::method_table()[operation.method];
      std::uint64_t bytes = 0;
      if (method.scratch_bytes != nullptr) {
        bytes = method.scratch_bytes(operation.task, threads);
      } else {
        const std::uint64_t counts = method.next_phase(operation.task, {})->num_counts;
        bytes = counts * sizeof(std::uint64_t) * static_cast<std::uint64_t>(threads + 4);
      }
      measuring_bytes = std::max(measuring_bytes, bytes);
      needs.holds_results = needs.holds_results || (!gather_statistics && method.speculation != nullptr &&
                                                    method.speculation->sample_elements(operation.task) != 0);
    }
    if (operation.block_scaled) {
      const std::uint64_t band = std::min(kScaleBlock * operation.task.shape.at(1), operation.task.elements());
      elements = std::max(elements, band);
      band_bytes = std::max(band_bytes, band * (sizeof(float) + 1));
    }
    elements = std::min(elements, operation.task.elements());
    for (const plan::SourceView& source : operation.sources) scratch_bytes = std::max(scratch_bytes, view_scratch_bytes(source));
    needs.smallest_slot_bytes = std::max<std::size_t>(needs.smallest_slot_bytes, elements * input_bytes_per_element(operation) + slop);
  }
  needs.smallest_slot_bytes = round_up(std::max<std::size_t>(needs.smallest_slot_bytes, kMiB), kDirectAlignment);
  needs.reserve_bytes =
      kProgramBytes + plan_memory_bytes(plan) + kept_read_bytes(plan) + kReaderThreads * scratch_bytes + measuring_bytes + band_bytes;
  // Values of block-scaled bands once more, as they are written.
  if (gather_statistics) needs.reserve_bytes += statistics_bytes(plan) + band_bytes;
  if (!plan.alignments.empty()) needs.prepare_bytes = kProgramBytes + plan_memory_bytes(plan) + expert_order_bytes(plan, threads);
  return needs;
}

std::uint64_t least_bytes(const Needs& needs) {
  return std::max(needs.prepare_bytes, needs.reserve_bytes + kFewestSlots * needs.smallest_slot_bytes + kWindows * kMiB);
}

}  // namespace

std::uint64_t input_bytes_per_element(const plan::Operation& operation) {
  std::uint64_t sum = 0;
  for (const plan::SourceView& source : operation.sources) sum += size_bytes(source.dtype);
  return sum;
}

bool needs_measuring(const plan::Operation& operation) {
  if (operation.kind != plan::Operation::Kind::kMerge) return false;
  const merge::MethodRow& method = merge::method_table()[operation.method];
  return method.next_phase != nullptr && method.next_phase(operation.task, {}).has_value();
}

BufferSizes plan_buffers(const plan::MergePlan& plan, std::uint64_t limit_bytes, int threads, bool gather_statistics) {
  const Needs needs = needs_of(plan, threads, gather_statistics);
  const std::uint64_t least = least_bytes(needs);
  if (limit_bytes < least) {
    throw Error(ErrorCode::kUsage, "a memory limit of " + format_memory(limit_bytes) +
                                       " per rank is too small for this merge; it needs at least " + format_memory(round_up(least, kMiB)) +
                                       " (--memory-limit)");
  }
  const std::uint64_t available = limit_bytes - needs.reserve_bytes;
  BufferSizes sizes;
  sizes.reserve_bytes = needs.reserve_bytes;
  sizes.window_bytes = std::clamp<std::uint64_t>(round_down(available / 16, kMiB), kMiB, kLargestWindowBytes);
  while (sizes.window_bytes > kMiB && kWindows * sizes.window_bytes + kFewestSlots * needs.smallest_slot_bytes > available) {
    sizes.window_bytes -= kMiB;
  }
  sizes.num_windows = needs.holds_results ? std::clamp<std::uint64_t>(available / 3 / sizes.window_bytes, kWindows, kMostWindowsHeld)
                                          : std::clamp<std::uint64_t>(available / 8 / sizes.window_bytes, kWindows, kMostWindows);
  if (sizes.num_windows * sizes.window_bytes + kFewestSlots * needs.smallest_slot_bytes > available) sizes.num_windows = kWindows;
  const std::uint64_t for_slots = available - sizes.num_windows * sizes.window_bytes;
  sizes.slot_bytes = std::max<std::size_t>(needs.smallest_slot_bytes,
                                           std::min<std::size_t>(kLargestSlotBytes, round_down(for_slots / 6, kDirectAlignment)));
  sizes.slot_bytes = std::min<std::size_t>(sizes.slot_bytes, round_down(for_slots / kFewestSlots, kDirectAlignment));
  sizes.num_slots = for_slots / sizes.slot_bytes;
  return sizes;
}

std::uint64_t minimum_memory_bytes(const plan::MergePlan& plan, bool gather_statistics) {
  const Needs needs = needs_of(plan, 1, gather_statistics);
  return round_up(least_bytes(needs), kMiB);
}

std::uint64_t planned_memory_bytes(const plan::MergePlan& plan, std::uint64_t limit_bytes, int threads, bool gather_statistics) {
  const BufferSizes sizes = plan_buffers(plan, limit_bytes, threads, gather_statistics);
  // Streaming keeps a handful of slots in flight; holding a measured tensor takes what it needs of the rest.
  constexpr std::uint64_t kStreamingSlots = 6;
  std::uint64_t slots = kStreamingSlots;
  for (const plan::Operation& operation : plan.operations) {
    if (!needs_measuring(operation) || (!gather_statistics && may_speculate(operation, sizes))) continue;
    const std::uint64_t held = operation.task.elements() * input_bytes_per_element(operation) / sizes.slot_bytes + 4;
    if (held <= sizes.num_slots) slots = std::max(slots, held + kReadAheadBytesHeld / sizes.slot_bytes + kStreamingSlots);
  }
  const std::uint64_t merging =
      sizes.reserve_bytes + sizes.num_windows * sizes.window_bytes + std::min<std::uint64_t>(slots, sizes.num_slots) * sizes.slot_bytes;
  return std::max(merging, needs_of(plan, threads, gather_statistics).prepare_bytes);
}

AlignedBuffer BufferPool::acquire() {
  std::unique_lock lock(mutex_);
  const auto may_go = [this] { return closed_ || !free_.empty() || allocated_ < max_buffers_; };
  if (!may_go()) {
    const trace::Span span(trace::Kind::kWait, "wait for a buffer");
    freed_.wait(lock, may_go);
  }
  if (closed_) return {};
  if (!free_.empty()) {
    AlignedBuffer buffer = std::move(free_.back());
    free_.pop_back();
    return buffer;
  }
  ++allocated_;
  lock.unlock();
  return AlignedBuffer(buffer_bytes_);
}

void BufferPool::release(AlignedBuffer buffer) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(buffer));
  freed_.notify_one();
}

void BufferPool::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  freed_.notify_all();
}

std::size_t BufferPool::allocated() const {
  const std::lock_guard lock(mutex_);
  return allocated_;
}

}  // namespace moeweld::exec
