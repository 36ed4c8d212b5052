#pragma once
/// Fills the plan's open slots: what only tensor data can tell, before the first item.

#include <string>
#include <vector>

#include "moeweld/base/peers.h"
#include "moeweld/exec/alignment.h"
#include "moeweld/exec/execute.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

struct PreparedSlots {
  std::vector<std::vector<double>> rows;  ///< by slot, row-major, of the slot's shape; the same on every rank
  ExpertOrders expert_orders;             ///< of the plan's alignments
  std::vector<std::string> warnings;      ///< degenerate routers
  std::string blas_core;                  ///< that a forward pass ran on; empty where there was none
};

template <class Archive>
void serialize(Archive& archive, AlignedLayer& value) {
  archive(value.alignment, value.model, value.router_before, value.router_after, value.weights_before, value.weights_after,
          value.experts_moved, value.neurons_moved);
}
template <class Archive>
void serialize(Archive& archive, PreparedSlots& prepared) {
  archive(prepared.rows, prepared.expert_orders.orders, prepared.expert_orders.layers, prepared.warnings, prepared.blas_core);
}

/// Collective; throws the same Error on every rank.
PreparedSlots prepare_slots(Peers& peers, Storage& storage, const plan::MergePlan& plan, const ExecuteOptions& options);

/// One unit vector per expert, the sum of its positive prompts' token embeddings made a unit vector, less the same of the negative ones,
/// made a unit vector again (norms up to 1e-8 are left as they are). Rank 0 computes, since the inputs are a few embedding rows.
/// Collective.
std::vector<double> cheap_embed_rows(Peers& peers, Storage& storage, const plan::MergePlan& plan, const plan::Slot& slot, IoMode io);

/// Replaces the last `num_shared` rows by one, the gate of all shared experts together: their mean, made a unit vector.
void fold_shared_rows(std::uint32_t num_shared, std::size_t width, std::vector<double>& rows);

}  // namespace moeweld::exec
