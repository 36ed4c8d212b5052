#pragma once
/// moeweld_manifest.json: what was read and written, so that any byte can be checked later.

#include <cstdint>
#include <string>
#include <vector>

#include "moeweld/formats/json.h"

namespace moeweld::exec {

constexpr const char* kManifestName = "moeweld_manifest.json";
constexpr const char* kManifestSchema = "moeweld.manifest/1";

struct ManifestFile {
  std::string name;
  std::uint64_t size_bytes = 0;
  std::string digest;  ///< "xxh3-128-1MiB:<hex>" as base/digest.h defines the digest of a file
};

struct ManifestInput {
  std::string model;
  std::string path;
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ns = 0;
};

/// The order of a layer's experts and neurons in one model, and what it is worth.
struct ManifestAlignment {
  int layer = 0;
  std::string model;
  std::vector<std::uint32_t> experts;  ///< expert e of the output is expert experts[e] of the model
  /// [e]: its neuron n is neuron neurons[e][n] of that expert; empty: as they are.
  std::vector<std::vector<std::uint32_t>> neurons;
  double router_before = 0;  ///< cosines with the model it is matched to; NaN: not looked at
  double router_after = 0;
  double weights_before = 0;
  double weights_after = 0;
};

formats::Json to_json(const ManifestAlignment& alignment);

struct Manifest {
  std::string version;
  std::string config;  ///< the YAML as read
  std::string command_line;
  std::uint64_t seed = 0;
  std::string plan_digest;                ///< plan::identity_digest() in hex: equal for the same work; empty in manifests of older versions
  std::vector<std::string> simd_targets;  ///< of each rank, for information: bytes do not depend on them
  std::string blas_core;  ///< of OpenBLAS on all ranks: last bits of router rows from a forward pass depend on it. Empty if they differ,
                          ///< which is refused where anything depends on it
  std::vector<std::string> composition;       ///< assemblies: what comes from which model
  std::vector<ManifestAlignment> alignments;  ///< written only; empty without align_experts
  std::vector<ManifestInput> inputs;
  std::vector<std::string> outputs;  ///< names of all models' directories, this one's too, where one run wrote several; empty otherwise
  std::vector<ManifestFile> files;   ///< every file of the directory but the manifest itself and README.md
};

std::string serialize_manifest(const Manifest& manifest);
/// Throws Error(kInvalidInput): not a manifest, or one of an unknown schema (named).
Manifest parse_manifest(const std::string& text, const std::string& path);

}  // namespace moeweld::exec
