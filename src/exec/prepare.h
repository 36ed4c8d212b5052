#pragma once
/// Fills the plan's open slots: what only tensor data can tell, before the first item.

#include <vector>

#include "moeweld/base/peers.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

/// cheap_embed: one unit vector per expert, the sum of its positive prompts' token embeddings made a unit vector, less the same of the
/// negative ones, made a unit vector again (norms up to 1e-8 are left as they are). Rows of every slot, row-major float64, the same on
/// every rank. Rank 0 computes, since a slot's inputs are a few embedding rows. Collective; throws the same Error on every rank.
std::vector<std::vector<double>> prepare_slots(Peers& peers, Storage& storage, const plan::MergePlan& plan, IoMode io);

/// Replaces the last `num_shared` rows by one, the gate of all shared experts together: their mean, made a unit vector.
void fold_shared_rows(std::uint32_t num_shared, std::size_t width, std::vector<double>& rows);

}  // namespace moeweld::exec
