#pragma once
/// A checkpoint seen through its family: which logical matrix is where.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "moeweld/base/dtype.h"
#include "moeweld/base/shape.h"
#include "moeweld/formats/checkpoint.h"
#include "moeweld/model/family.h"
#include "moeweld/model/tensor_key.h"

namespace moeweld::model {

/// One logical matrix: contiguous bytes of one file (a slice of a fused tensor, or a whole tensor).
struct CatalogEntry {
  DType dtype{};
  Shape shape;               ///< of the logical matrix: [I, H] for an expert's gate whatever the layout
  std::uint32_t tensor = 0;  ///< index into Checkpoint::tensors
  std::uint32_t file = 0;    ///< index into Checkpoint::files
  std::uint64_t begin = 0;   ///< first byte in the file
  Place place = Place::kLayer;
  bool vocabulary_rows = false;
  bool keep_f32 = false;
  bool optional = false;
};

struct Catalog {
  const Family* family = nullptr;      ///< null: generic
  Layout layout = Layout::kPerExpert;  ///< how the checkpoint stores its experts
  std::map<TensorKey, CatalogEntry> entries;
  std::vector<std::pair<std::string, std::string>> dropped;  ///< tensor name, reason: not carried over
  /// Number of layers per layer prefix of names ("model" → 32; "model.encoder" → 12, "model.decoder" → 12).
  std::map<std::string, int> num_layers;
  int num_experts = 0;
};

/// Every tensor of the checkpoint is an entry (or part of several) or dropped with its reason. Without a table, or for tensors that a table
/// does not know, names are matched one to one: the first ".<number>." is the layer; a later ".experts.<number>." is the expert.
/// `architecture` overrides config.json's. Throws Error(kInvalidInput): config.json and tensors disagree on layers or experts, a fused
/// tensor's shape does not divide, a required tensor is missing (all collected).
Catalog make_catalog(const formats::Checkpoint& checkpoint, std::string_view architecture);

/// "model.encoder" of "model.encoder.layers.3.fc1.weight", "h" of "h.3.ln_1.weight"; empty where there is no layer index.
std::string layer_prefix(std::string_view tensor_name);

}  // namespace moeweld::model
