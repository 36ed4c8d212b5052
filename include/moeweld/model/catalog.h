#pragma once
/// A checkpoint seen through its family: which logical matrix is where.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "moeweld/base/dtype.h"
#include "moeweld/base/shape.h"
#include "moeweld/formats/checkpoint.h"
#include "moeweld/model/family.h"
#include "moeweld/model/tensor_key.h"

namespace moeweld::model {

/// Where the scales of a block-scaled FP8 matrix are: [⌈rows/128⌉, ⌈columns/128⌉], one after the other, the last block of each row and
/// column cut off. Value of an element: that of its FP8 code times the scale of its block.
struct ScaleLocation {
  DType dtype{};  ///< arithmetic; F32 as a rule
  Shape shape;
  std::uint32_t tensor = 0;  ///< index into Checkpoint::tensors
  std::uint32_t file = 0;    ///< index into Checkpoint::files
  std::uint64_t begin = 0;   ///< first byte in the file
  /// Row of the scaled matrix that is the entry's first: entries may be parts of it, and need not begin with a block.
  std::uint64_t first_row = 0;
};

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
  std::optional<ScaleLocation> scale;  ///< block-scaled FP8: the codes alone are not the values

  /// The type that the entry's values are written in unless something else is asked for.
  DType usual_dtype() const { return scale ? DType::kBF16 : dtype; }
  /// The type in which its values are read.
  DType value_dtype() const { return scale ? DType::kF32 : dtype; }
};

struct Catalog {
  const Family* family = nullptr;      ///< null: generic
  Layout layout = Layout::kPerExpert;  ///< how the checkpoint stores its experts
  std::map<TensorKey, CatalogEntry> entries;
  std::vector<std::pair<std::string, std::string>> dropped;  ///< tensor name, reason: not carried over
  /// Number of layers per layer prefix of names ("model" → 32; "model.encoder" → 12, "model.decoder" → 12), without MTP layers.
  std::map<std::string, int> num_layers;
  int num_experts = 0;
  /// Layers of multi-token prediction in the tensors: their entries have the layers num_layers["model"] and up.
  int num_mtp_layers = 0;
  /// Families with experts: for each layer, MTP layers included, whether it has a router and experts.
  std::vector<bool> sparse_layers;
  bool tied_head = false;  ///< a table family without an lm_head of its own
  bool has_block_scales = false;
  std::vector<std::string> notes;  ///< what is odd but harmless
};

/// Every tensor of the checkpoint is an entry (or part of several) or dropped with its reason. Without a table, or for tensors that a table
/// does not know, names are matched one to one: the first ".<number>." is the layer; a later ".experts.<number>." is the expert.
/// `architecture` overrides config.json's. The scales of block-scaled FP8 (N_scale_inv beside N, as a rule X.weight_scale_inv, or X.scale
/// beside X.weight) belong to their weight's entry. Throws Error(kInvalidInput): config.json and tensors disagree on layers or experts, a
/// fused tensor's shape does not divide, a required tensor is missing, scales are missing or misshapen (all collected).
Catalog make_catalog(const formats::Checkpoint& checkpoint, std::string_view architecture);

/// "model.encoder" of "model.encoder.layers.3.fc1.weight", "h" of "h.3.ln_1.weight"; empty where there is no layer index.
std::string layer_prefix(std::string_view tensor_name);

}  // namespace moeweld::model
