#pragma once
/// MergePlan × what a site does per second → nodes, ranks, memory and time of a batch job. A model: it says what it is bound by.

#include <cstdint>
#include <functional>
#include <string>

#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/site_rates.h"

namespace moeweld::plan {

struct JobEstimate {
  std::uint64_t nodes = 1;
  std::uint64_t ranks_per_node = 1;
  std::uint64_t cpus_per_task = 1;
  std::uint64_t memory_per_node_bytes = 0;
  double seconds = 0;    ///< expected
  std::string bound_by;  ///< "reading", "writing", "the file system", "computing", "the forward pass"
};

/// Seconds of the merge on `nodes` nodes of `cores` used cores each: the forward pass of the slots, then the slowest of reading, writing,
/// the file system's ceiling and combining, which overlap.
JobEstimate estimate_seconds(const MergePlan& plan, const SiteRates& rates, std::uint64_t nodes, std::uint64_t cores);

/// Ranks of eight cores, fewer where memory or the output's MiB are. `nodes` 0: the fewest that take half an hour or less, or where twice
/// as many would save less than a quarter. `memory_of`: what a rank of so many threads needs at most.
JobEstimate estimate_job(const MergePlan& plan, const SiteRates& rates, std::uint64_t nodes,
                         const std::function<std::uint64_t(int threads)>& memory_of);

}  // namespace moeweld::plan
