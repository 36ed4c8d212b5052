#pragma once
/// The neurons of an expert as rows of numbers: exact, in runs of kDepth columns, or sketched to kDepth numbers each.

#include <cstdint>
#include <span>
#include <vector>

#include "moeweld/align/expert_matrices.h"

namespace moeweld::align {

/// Runs of columns that all 3·hidden numbers of a neuron make: gate's, up's, down's.
std::uint64_t num_column_runs(const ExpertMatrices& expert);

/// Columns of one run, [num_neurons, kDepth], the last of a matrix filled up with zeros.
void decode_column_run(const ExpertMatrices& expert, std::uint64_t run, std::vector<float>& result, int threads);

/// [num_neurons, kDepth]: each of a neuron's numbers is added, with a fixed random sign, to the one that its index in its matrix leaves
/// when divided by kDepth (a count sketch with fixed buckets). Inner products of sketches are those of the neurons plus noise of about 1/16
/// of the product of their lengths. Equal neurons have equal sketches.
void sketch_neurons(const ExpertMatrices& expert, std::vector<float>& result, int threads);

/// A sketch of the whole expert, [rows, kDepth]: neuron n, with its own fixed sign, is added to row n % rows of the sketched neurons' sum.
std::vector<float> sketch_expert(const std::vector<float>& sketched_neurons, std::uint64_t num_neurons, std::uint64_t rows);

/// Inner product, in float64, of each neuron n of `a` with neuron order[n] of `b`.
std::vector<double> paired_products(const ExpertMatrices& a, const ExpertMatrices& b, std::span<const std::uint32_t> order, int threads);

}  // namespace moeweld::align
