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

/// One tensor of a family. `name` has the place holders {layer} and {expert}.
struct TensorRow {
  std::string_view role;
  std::string_view name;
  Place place = Place::kLayer;
  bool optional = false;         ///< may be absent (a tied head, biases)
  bool vocabulary_rows = false;  ///< dimension 0 counts tokens
  bool keep_f32 = false;         ///< always written as F32
};

/// A tensor that holds one matrix per expert, one after the other along dimension 0, each a stack of `roles` along dimension 1 in equal
/// parts.
struct FusedRow {
  std::string_view name;                ///< "model.layers.{layer}.mlp.experts.gate_up_proj"
  std::vector<std::string_view> roles;  ///< {"expert_gate_proj", "expert_up_proj"}
};

struct Family {
  std::string_view name;                        ///< "mixtral"
  std::vector<std::string_view> architectures;  ///< entries of config.json's architectures; the first is written
  std::string_view model_type;
  std::vector<TensorRow> tensors;      ///< per-expert layout, in the order they are written
  std::vector<FusedRow> fused;         ///< empty: the family has no fused layout
  std::vector<TensorRow> fused_names;  ///< other names that go with the fused layout (the router's)
  std::vector<std::string_view>
      derived;  ///< name endings that are computed from the config and are not carried over ("rotary_emb.inv_freq")
  std::string_view num_layers_key = "num_hidden_layers";
  std::string_view num_experts_key;  ///< empty: dense
};

/// llama, mistral, qwen2, qwen3, mixtral.
std::span<const Family> families();

/// By config.json's architectures[0] (or an override); null: no table, names are matched one to one.
const Family* find_family(std::string_view architecture);

/// The name on disk for a key, in the per-expert layout: what filters of configs see. For keys without a table row, the role with the layer
/// put in.
std::string tensor_name(const Family* family, const TensorKey& key);

}  // namespace moeweld::model
