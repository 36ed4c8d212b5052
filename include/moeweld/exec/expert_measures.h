#pragma once
/// What tensor data says about a mixture's experts, for choosing among them.

#include "moeweld/base/peers.h"
#include "moeweld/plan/reduction.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

/// Euclidean norm of each expert's router row, summed in float64 in the row's order. Layers are shared out to the ranks. Throws
/// Error(kInvalidInput) for rows that are not finite, naming the tensor. Collective; the same on every rank.
plan::ExpertScores router_row_norms(Peers& peers, Storage& storage, const plan::MixtureSurvey& survey, IoMode io);

/// Cosines of the experts of each layer, over the elements of gate, up and down together, neurons where they are: sums in float64, in a
/// fixed order. Every expert is read once; each layer by one rank, within `memory_limit_bytes`. Throws Error(kInvalidInput) for experts
/// that are not finite. Collective; the same on every rank.
plan::ExpertSimilarities expert_similarities(Peers& peers, Storage& storage, const plan::MixtureSurvey& survey, IoMode io,
                                             std::uint64_t memory_limit_bytes, int threads);

}  // namespace moeweld::exec
