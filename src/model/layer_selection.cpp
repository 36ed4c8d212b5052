#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "model/config_fields.h"
#include "moeweld/base/error.h"
#include "moeweld/model/model_config.h"

namespace moeweld::model {
namespace {

constexpr std::array<std::string_view, 4> kCountKeys{"num_hidden_layers", "n_layer", "n_layers", "num_layers"};

/// Lists of layer indices rather than of one entry per layer.
constexpr std::array<std::string_view, 8> kIndexLists{
    "mlp_only_layers",       "moe_layers",          "attn_layer_indices", "full_attn_idxs", "cross_attention_layers",
    "full_attention_layers", "rope_scaling_layers", "local_layer_ids"};

/// Lists with one entry per layer whose name does not say so.
constexpr std::array<std::string_view, 8> kEntryLists{"num_query_heads", "num_kv_heads",           "ffn_multipliers", "block_configs",
                                                      "attn_type_list",  "sliding_window_pattern", "attention_types", "rope_pattern"};

template <typename List>
bool contains(const List& list, std::string_view key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

std::optional<std::int64_t> integer(const Json& config, std::string_view key) {
  const Json* value = field(config, key);
  return value != nullptr && value->is_number_integer() ? std::optional<std::int64_t>(value->get<std::int64_t>()) : std::nullopt;
}

/// Families whose readers work out each layer's kind from its position: written out, so that a moved layer keeps its kind.
void spell_out_layer_types(Json& config, std::int64_t num_layers) {
  const std::string model_type = text_field(config, "model_type");
  const auto every = [&](std::int64_t period) {
    Json types = Json::array();
    for (std::int64_t layer = 0; layer < num_layers; ++layer) {
      types.push_back((layer + 1) % period != 0 ? "sliding_attention" : "full_attention");
    }
    return types;
  };
  const auto period = [&](std::string_view key, std::int64_t fallback) {
    const auto value = integer(config, key).value_or(fallback);
    return value > 0 ? value : fallback;
  };
  if (field(config, "no_rope_layers") == nullptr && model_type == "smollm3") {
    const std::int64_t interval = period("no_rope_layer_interval", 4);
    Json has_rope = Json::array();
    for (std::int64_t layer = 0; layer < num_layers; ++layer) has_rope.push_back((layer + 1) % interval != 0 ? 1 : 0);
    config["no_rope_layers"] = std::move(has_rope);
  }
  const auto step = integer(config, "decoder_sparse_step").value_or(1);
  if (step > 1) {
    std::set<std::int64_t> dense;
    if (const Json* listed = field(config, "mlp_only_layers"); listed != nullptr && listed->is_array()) {
      for (const Json& layer : *listed) {
        if (layer.is_number_integer()) dense.insert(layer.get<std::int64_t>());
      }
    }
    for (std::int64_t layer = 0; layer < num_layers; ++layer) {
      if ((layer + 1) % step != 0) dense.insert(layer);
    }
    config["decoder_sparse_step"] = 1;
    config["mlp_only_layers"] = dense;
  }
  if (field(config, "layer_types") != nullptr) return;
  if (model_type == "gemma2") config["layer_types"] = every(2);
  if (model_type == "gemma3_text" || model_type == "gemma3") config["layer_types"] = every(period("sliding_window_pattern", 6));
  if (model_type == "cohere2") config["layer_types"] = every(period("sliding_window_pattern", 4));
  const Json* uses_window = field(config, "use_sliding_window");
  if (uses_window != nullptr && uses_window->is_boolean() && uses_window->get<bool>() && field(config, "sliding_window") != nullptr) {
    const auto first = integer(config, "max_window_layers").value_or(28);
    Json types = Json::array();
    for (std::int64_t layer = 0; layer < num_layers; ++layer) types.push_back(layer >= first ? "sliding_attention" : "full_attention");
    config["layer_types"] = std::move(types);
  }
}

bool is_identity(const std::vector<int>& source_layers, std::int64_t num_layers) {
  if (static_cast<std::int64_t>(source_layers.size()) != num_layers) return false;
  for (std::size_t layer = 0; layer < source_layers.size(); ++layer) {
    if (source_layers[layer] != static_cast<int>(layer)) return false;
  }
  return true;
}

Json map_indices(const Json& list, const std::vector<int>& source_layers) {
  std::set<std::int64_t> chosen;
  for (const Json& layer : list) chosen.insert(layer.get<std::int64_t>());
  Json mapped = Json::array();
  for (std::size_t layer = 0; layer < source_layers.size(); ++layer) {
    if (chosen.contains(source_layers[layer])) mapped.push_back(layer);
  }
  return mapped;
}

/// A count of leading layers (max_window_layers, first_k_dense_replace) for the layers of the output: how many of them come first.
std::int64_t leading_layers(std::int64_t count, const std::vector<int>& source_layers) {
  const auto end = std::find_if(source_layers.begin(), source_layers.end(), [&](int layer) { return layer >= count; });
  return end - source_layers.begin();
}

void select_in(Json& config, const std::string& where, const std::vector<int>& source_layers, std::vector<std::string>& notes) {
  std::optional<std::int64_t> num_layers;
  for (const std::string_view key : kCountKeys) {
    num_layers = integer(config, key);
    if (num_layers) break;
  }
  if (!num_layers || is_identity(source_layers, *num_layers)) return;
  for (const int layer : source_layers) {
    if (layer < 0 || layer >= *num_layers) {
      throw Error(ErrorCode::kInvalidInput, "The output takes layer " + std::to_string(layer) +
                                                ", but config.json says that the model has " + std::to_string(*num_layers) + " layers.");
    }
  }
  if (*num_layers > 1'000'000) throw Error(ErrorCode::kInvalidInput, "config.json says more than a million layers.");
  spell_out_layer_types(config, *num_layers);
  const auto num_new = static_cast<std::int64_t>(source_layers.size());
  const auto changed = [&](const std::string& key, const std::string& how) {
    notes.push_back("config.json: " + where + key + " " + how + ".");
  };

  for (auto& item : config.items()) {
    const std::string& key = item.key();
    Json& value = item.value();
    if (contains(kCountKeys, key)) {
      if (value.is_number_integer() && value == *num_layers) {
        changed(key, "changed from " + std::to_string(*num_layers) + " to " + std::to_string(num_new));
        value = num_new;
      }
    } else if (key == "max_window_layers" && value.is_number_integer()) {
      value = leading_layers(value.get<std::int64_t>(), source_layers);
    } else if (key == "first_k_dense_replace" && value.is_number_integer()) {
      const auto old_count = value.get<std::int64_t>();
      const std::int64_t first = leading_layers(old_count, source_layers);
      if (std::any_of(source_layers.begin() + first, source_layers.end(), [&](int layer) { return layer < old_count; })) {
        throw Error(ErrorCode::kUnsupported,
                    "The output's layers put a dense layer after a sparse one, which first_k_dense_replace in config.json cannot say.");
      }
      value = first;
    } else if (value.is_array()) {
      if (contains(kIndexLists, key) &&
          std::all_of(value.begin(), value.end(), [](const Json& entry) { return entry.is_number_integer(); })) {
        Json mapped = map_indices(value, source_layers);
        if (mapped != value) changed(key, "lists the layers of the output");
        value = std::move(mapped);
      } else if (static_cast<std::int64_t>(value.size()) == *num_layers &&
                 (key.find("layer") != std::string::npos || contains(kEntryLists, key))) {
        Json mapped = Json::array();
        for (const int layer : source_layers) mapped.push_back(value[static_cast<std::size_t>(layer)]);
        value = std::move(mapped);
        changed(key, "follows the layers of the output");
      }
    }
  }
}

}  // namespace

void select_layers(Json& config, const std::vector<int>& source_layers, std::vector<std::string>& notes) {
  if (!config.is_object()) return;
  select_in(config, "", source_layers, notes);
  for (const char* nested : {"text_config", "llm_config", "language_config"}) {
    const auto found = config.find(nested);
    if (found != config.end() && found->is_object()) select_in(*found, std::string(nested) + ".", source_layers, notes);
  }
}

}  // namespace moeweld::model
