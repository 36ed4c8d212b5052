#pragma once
/// config × checkpoints → MergePlan. Reads headers and small files only; all problems are found and reported together.

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "moeweld/config/merge_config.h"
#include "moeweld/formats/checkpoint.h"
#include "moeweld/formats/model_locator.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/storage/storage.h"

namespace moeweld::plan {

/// How the output's tensors are stored: Hugging Face's files, or one HDF5 file, model.h5 (docs/hdf5.md).
enum class OutputFormat : std::uint8_t { kSafetensors, kHdf5 };

struct PlanOptions {
  bool allow_crimes = false;
  bool copy_tokenizer = true;
  bool trust_remote_code = false;  ///< .py files are copied (never executed)
  bool unsafe_truncate_embeddings = false;
  bool allow_degenerate = false;  ///< identical experts or prompts
  OutputFormat format = OutputFormat::kSafetensors;
  std::uint64_t out_shard_size_bytes = 5'000'000'000;  ///< safetensors
  std::uint64_t seed = 0;
  std::optional<config::Layout> layout;  ///< --layout
  bool write_model_card = true;
};

/// Finds and reads the models a config names; each directory once.
class ModelSource {
 public:
  ModelSource(Storage& storage, formats::HubCacheEnvironment environment) : storage_(storage), environment_(std::move(environment)) {}
  /// Throws Error: not found, damaged, unsupported.
  const formats::Checkpoint& get(const config::ModelReference& reference);
  Storage& storage() { return storage_; }

 private:
  Storage& storage_;
  formats::HubCacheEnvironment environment_;
  std::map<std::string, formats::Checkpoint> checkpoints_;  // by directory
};

/// Plans a merge or an assembly. Throws Error with every problem found.
MergePlan make_plan(const config::ConfigFile& config, ModelSource& models, const PlanOptions& options);

/// Plans `moeweld convert MODEL OUT`: every tensor as it is, of any architecture, in the format that the options ask for.
MergePlan make_conversion_plan(const config::ModelReference& model, ModelSource& models, const PlanOptions& options);

}  // namespace moeweld::plan
