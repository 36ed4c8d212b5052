#pragma once
/// From OUT.partial to OUT: everything around the tensors, and the order in which it becomes visible. Rank 0's work.

#include <span>
#include <string>
#include <vector>

#include "exec/window_writer.h"
#include "moeweld/exec/alignment.h"
#include "moeweld/exec/execute.h"

namespace moeweld::exec {

/// "out/" → "out": the name that ".partial" is appended to.
std::string plain_directory(const std::string& output_directory);

/// Written last.
constexpr const char* kIndexName = "model.safetensors.index.json";

/// OUT.partial, complete, becomes OUT; with `force` an existing OUT is moved aside first and removed last.
void give_name(Storage& storage, const std::string& output, bool force);

/// Digest of every output file from all ranks' runs. Throws Error(kInternal) if a chunk is missing or there twice.
std::vector<Digest> combine_digests(const plan::MergePlan& plan, std::span<const RunDigests> runs);

/// Whether the output has a shard index, which is written last; one HDF5 file needs none.
bool has_index(const plan::MergePlan& plan);

/// Replaces the digests of what the writer made itself (PlannedOutputFile::own_metadata_bytes) by those of the files in `directory`.
void digest_own_metadata(Storage& storage, const plan::MergePlan& plan, const std::string& directory, std::span<RunDigests> runs);

/// What the manifest says of how the bytes came about.
struct ComputedWith {
  std::vector<std::string> simd_targets;  ///< by rank
  std::string blas_core;                  ///< of all ranks, else empty
  const ExpertOrders* expert_orders = nullptr;
};

/// Writes auxiliary files, model card, manifest and, last, the index into OUT.partial, removes the journal, and calls give_name().
void publish(Storage& storage, const plan::MergePlan& plan, std::span<const Digest> file_digests, const ComputedWith& with,
             const std::string& output_directory, const ExecuteOptions& options);

}  // namespace moeweld::exec
