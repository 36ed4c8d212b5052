#include "moeweld/plan/job_estimate.h"

#include <algorithm>
#include <utility>

#include "moeweld/base/checked.h"
#include "moeweld/merge/method.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::plan {

namespace {

/// Starting ranks, reading headers, publishing.
constexpr double kFixedSeconds = 20;
constexpr double kGoalSeconds = 1800;
constexpr std::uint64_t kCoresPerRank = 8;
constexpr std::uint64_t kMostNodes = 1024;
/// Of a rank, besides its limit: MPI's buffers and the program.
constexpr std::uint64_t kMpiBytes = std::uint64_t{512} << 20;
/// Of a node: page cache that a control group charges to the job.
constexpr std::uint64_t kCacheBytes = std::uint64_t{2} << 30;

double elements_of(const model::GatedFfn& ffn) {
  return static_cast<double>(ffn.gate.rows * ffn.gate.columns + ffn.up.rows * ffn.up.columns + ffn.down.rows * ffn.down.columns);
}

/// Multiplications and additions of the prompts' forward passes; all experts are counted, though a token passes only some.
double forward_flops(const MergePlan& plan) {
  double flops = 0;
  for (const Slot& slot : plan.slots) {
    if (slot.kind != Slot::Kind::kHiddenRouter) continue;
    std::size_t tokens = 0;
    for (const auto* prompts : {&slot.positive_ids, &slot.negative_ids}) {
      for (const auto& of_expert : *prompts) {
        for (const auto& prompt : of_expert) tokens += prompt.size();
      }
    }
    double elements = 0;
    for (const model::TransformerLayer& layer : slot.base.layers) {
      for (const model::Weight* weight : {&layer.q, &layer.k, &layer.v, &layer.o})
        elements += static_cast<double>(weight->rows * weight->columns);
      elements += elements_of(layer.ffn);
      for (const model::GatedFfn& expert : layer.experts) elements += elements_of(expert);
    }
    flops += 2 * elements * static_cast<double>(tokens);
  }
  return flops;
}

double forward_bytes(const MergePlan& plan) {
  double bytes = 0;
  for (const Slot& slot : plan.slots) {
    if (slot.kind != Slot::Kind::kHiddenRouter) continue;
    for (const model::TransformerFile& file : slot.base.files) bytes += static_cast<double>(file.identity.size_bytes);
  }
  return bytes;
}

/// Core-seconds of combining.
double combine_core_seconds(const MergePlan& plan, const SiteRates& rates) {
  double seconds = 0;
  for (const Operation& operation : plan.operations) {
    if (operation.kind != Operation::Kind::kMerge) continue;
    const auto found = rates.combine_of.find(std::string(merge::method_table()[operation.method].name));
    const double rate = found == rates.combine_of.end() ? rates.combine_bytes_per_second_per_core : found->second;
    for (const SourceView& source : operation.sources) seconds += static_cast<double>(read_bytes(source)) / rate;
  }
  return seconds;
}

}  // namespace

JobEstimate estimate_seconds(const MergePlan& plan, const SiteRates& rates, std::uint64_t nodes, std::uint64_t cores) {
  const auto in = static_cast<double>(plan.input_bytes());
  const auto out = static_cast<double>(plan.output_bytes());
  const auto num_nodes = static_cast<double>(nodes);
  const double all_cores = num_nodes * static_cast<double>(cores);
  const std::pair<double, const char*> stages[] = {{in / (num_nodes * rates.read_bytes_per_second), "reading"},
                                                   {out / (num_nodes * rates.write_bytes_per_second), "writing"},
                                                   {(in + out) / rates.file_system_bytes_per_second, "the file system"},
                                                   {combine_core_seconds(plan, rates) / all_cores, "computing"}};
  const auto slowest =
      std::max_element(std::begin(stages), std::end(stages), [](const auto& a, const auto& b) { return a.first < b.first; });
  const double forward =
      std::max(forward_flops(plan) / (all_cores * rates.forward_flops_per_second_per_core),
               forward_bytes(plan) / std::min(num_nodes * rates.read_bytes_per_second, rates.file_system_bytes_per_second));
  JobEstimate estimate;
  estimate.nodes = nodes;
  estimate.seconds = kFixedSeconds + forward + slowest->first;
  estimate.bound_by = forward > slowest->first ? "the forward pass" : slowest->second;
  return estimate;
}

JobEstimate estimate_job(const MergePlan& plan, const SiteRates& rates, std::uint64_t nodes,
                         const std::function<std::uint64_t(int threads)>& memory_of) {
  const std::uint64_t per_rank = std::min(kCoresPerRank, rates.cores_per_node);
  const std::uint64_t rank_bytes = memory_of(checked_cast<int>(per_rank)) + kMpiBytes;
  const std::uint64_t largest = std::max<std::uint64_t>(1, round_up(plan.output_bytes(), kCutAlignmentBytes) / kCutAlignmentBytes);
  std::uint64_t ranks = std::max<std::uint64_t>(1, rates.cores_per_node / per_rank);
  ranks = std::min(ranks, largest);
  const double room = 0.9 * rates.memory_per_node_bytes - static_cast<double>(kCacheBytes);
  while (ranks > 1 && static_cast<double>(ranks * rank_bytes) > room) --ranks;

  JobEstimate chosen = estimate_seconds(plan, rates, std::max<std::uint64_t>(1, nodes), ranks * per_rank);
  while (nodes == 0 && chosen.seconds > kGoalSeconds && chosen.nodes < kMostNodes) {
    JobEstimate more = estimate_seconds(plan, rates, 2 * chosen.nodes, ranks * per_rank);
    if (more.seconds > 0.75 * chosen.seconds) break;
    chosen = std::move(more);
  }
  chosen.ranks_per_node = ranks;
  chosen.cpus_per_task = per_rank;
  chosen.memory_per_node_bytes = ranks * rank_bytes + kCacheBytes;
  return chosen;
}

}  // namespace moeweld::plan
