#pragma once
/// How one architecture names and lays out its tensors: tables, not code. Facts and sources: docs/families.md.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moeweld/formats/json.h"
#include "moeweld/model/tensor_key.h"

namespace moeweld::model {

enum class Layout : std::uint8_t { kPerExpert, kFused };

/// In which layers of a family a tensor stands.
enum class Layers : std::uint8_t {
  kAll,     ///< every layer, those of multi-token prediction (MTP) too
  kDense,   ///< those with a plain FFN
  kSparse,  ///< those with experts
  kMtp,     ///< only those after num_hidden_layers
};

/// Whether a tensor must be there, as far as config.json decides it. `key` is TensorRow::key.
enum class Need : std::uint8_t {
  kAlways,
  kNever,        ///< may be absent (biases, a tied head)
  kUnlessFalse,  ///< unless config.json's `key` is false
  kIfPositive,   ///< where config.json's `key` is a number above 0
  kIfNull,       ///< where config.json's `key` is null
  kUnlessNull,   ///< unless config.json's `key` is null; where it is absent too
};

/// One tensor of a family. `name` has the place holders {layer} and {expert}.
struct TensorRow {
  std::string_view role;
  std::string_view name;
  Place place = Place::kLayer;
  Layers layers = Layers::kAll;
  Need need = Need::kAlways;
  std::string_view key;
  bool vocabulary_rows = false;  ///< dimension 0 counts tokens
  bool keep_f32 = false;         ///< any float type is read, F32 always written: rounding it would change the routing
};

/// A tensor that holds several matrices one after the other, so that each is a contiguous run of bytes. Per expert: [E, parts x rows,
/// columns], for each expert a stack of `roles` in equal parts. Else the stack alone: [parts x rows, columns].
struct FusedRow {
  std::string_view name;                ///< "model.layers.{layer}.mlp.experts.gate_up_proj"
  std::vector<std::string_view> roles;  ///< {"expert_gate_proj", "expert_up_proj"}
  bool per_expert = true;
};

/// How config.json says which layers have experts.
enum class SparseLayers : std::uint8_t {
  kNone,        ///< a dense family
  kAll,         ///< all layers
  kSparseStep,  ///< decoder_sparse_step and mlp_only_layers
  kAfterDense,  ///< first_k_dense_replace and moe_layer_freq
};

struct Family {
  std::string_view name;                        ///< "mixtral"
  std::vector<std::string_view> architectures;  ///< entries of config.json's architectures; the first is written
  std::string_view model_type;
  std::vector<TensorRow> tensors;      ///< per-expert layout, in the order they are written
  std::vector<FusedRow> fused;         ///< empty: the family has no fused layout
  std::vector<TensorRow> fused_names;  ///< other names that go with the fused layout (the router's)
  /// The family is on disk in the fused layout only (Granite): the rows of fused matrices have names for filters and messages alone.
  bool always_fused = false;
  std::vector<std::string_view>
      derived;  ///< name endings that are computed from the config and are not carried over ("rotary_emb.inv_freq")
  std::string_view num_layers_key = "num_hidden_layers";
  std::vector<std::string_view> num_experts_keys;  ///< the first that is there counts; the first is written; empty: dense
  SparseLayers sparse_layers = SparseLayers::kNone;
  int default_dense_layers = 0;         ///< kAfterDense: first_k_dense_replace where config.json says nothing
  std::string_view num_mtp_layers_key;  ///< empty: no layers after num_hidden_layers
};

/// Dense: llama, mistral, qwen2, qwen3, granite. Mixtures: mixtral, qwen2_moe, qwen3_moe, deepseek, deepseek_v2, deepseek_v3, glm4_moe,
/// olmoe, phimoe, minimax_m2, granitemoe, granitemoeshared.
std::span<const Family> families();

/// By config.json's architectures[0] (or an override); null: no table, names are matched one to one.
const Family* find_family(std::string_view architecture);

/// The row of a role; null: the table does not know it.
const TensorRow* find_row(const Family& family, std::string_view role);

/// Which of the layers 0..num_layers have experts, by config.json (mlp_layer_types, where transformers 5 wrote it, wins). All false for a
/// dense family. Throws Error(kInvalidInput) where a field has a value that no reader understands.
std::vector<bool> sparse_layers(const Family& family, const formats::Json& config, int num_layers);

/// The name for a key in the per-expert layout: what filters of configs see, and the name on disk unless the family is always fused. For
/// keys without a table row, the role with the layer put in.
std::string tensor_name(const Family* family, const TensorKey& key);

}  // namespace moeweld::model
