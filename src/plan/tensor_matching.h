#pragma once
/// Which tensors of which inputs make each tensor of the output, and which make none.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"
#include "moeweld/model/catalog.h"
#include "plan/input_models.h"
#include "plan/slices.h"

namespace moeweld::plan {

/// One logical matrix of the output.
struct MatchedTensor {
  model::TensorKey key;  ///< its layer is the output's
  std::string name;      ///< per-expert name in the output
  const Module* module = nullptr;
  const Slice* slice = nullptr;
  int layer_in_slice = -1;                         ///< -1: belongs to no layer
  double t = 0;                                    ///< where on a gradient
  std::vector<const model::CatalogEntry*> inputs;  ///< one for each source of the slice
  bool is_taken = false;                           ///< from the only source as it is, whatever the method
};

struct Matching {
  std::vector<MatchedTensor> tensors;  ///< in the order in which they are written
  std::vector<DroppedTensor> dropped;
  bool has_head = false;            ///< table families: an lm_head is written
  bool has_embedding_role = false;  ///< the family names its embedding
  int num_layers = 0;               ///< of the output, for models with one layer prefix
  int num_mtp_layers = 0;           ///< of the output, after the others
  /// Of layers of multi-token prediction that are the first input's.
  std::vector<std::unique_ptr<Slice>> base_slices;
};

/// Name of the input's tensor that goes into `tensor` from source `source`: what filters of per-model parameters see.
std::string input_name(const MatchedTensor& tensor, std::size_t source, const InputModels& inputs);

/// Every tensor of every input is in Matching, used or dropped with its reason; else there is a problem. With `allow_crimes` tensors that
/// only others than the donor have are dropped. Layers of multi-token prediction follow `mtp` in whole models, and are dropped elsewhere.
/// The result points into `modules` and `inputs`.
Matching match_tensors(const std::vector<Module>& modules, const InputModels& inputs, bool allow_crimes, config::MtpMode mtp,
                       const std::string& config_path, ProblemList& problems);

}  // namespace moeweld::plan
