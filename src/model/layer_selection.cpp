#include <algorithm>
#include <array>

#include "moeweld/model/model_config.h"

namespace moeweld::model {

namespace {

constexpr std::array<std::string_view, 4> kLayerCounts = {"num_hidden_layers", "n_layer", "num_layers", "n_layers"};
/// Lists of layer indices, not of one entry per layer.
constexpr std::array<std::string_view, 2> kIndexLists = {"mlp_only_layers", "full_attention_layers"};
/// Lists of one entry per layer, whatever their length says.
constexpr std::array<std::string_view, 4> kPerLayerLists = {"layer_types", "mlp_layer_types", "no_rope_layers", "layers_block_type"};

template <std::size_t N>
bool is_one_of(const std::string& key, const std::array<std::string_view, N>& names) {
  return std::find(names.begin(), names.end(), key) != names.end();
}

void select_in(Json& config, const std::vector<int>& source_layers, std::vector<std::string>& notes) {
  std::int64_t layers_before = -1;
  for (const std::string_view key : kLayerCounts) {
    const auto found = config.find(std::string(key));
    if (found == config.end() || !found->is_number_integer()) continue;
    layers_before = found->get<std::int64_t>();
    *found = source_layers.size();
  }
  for (auto& [key, value] : config.items()) {
    if (!value.is_array()) continue;
    if (is_one_of(key, kIndexLists)) {
      Json selected = Json::array();
      for (std::size_t layer = 0; layer < source_layers.size(); ++layer) {
        if (std::find(value.begin(), value.end(), Json(source_layers[layer])) != value.end()) selected.push_back(layer);
      }
      if (selected != value) notes.push_back("config.json: " + key + " follows the layers of the output");
      value = std::move(selected);
      continue;
    }
    const bool one_per_layer = is_one_of(key, kPerLayerLists) || (layers_before > 1 && value.size() == static_cast<std::size_t>(layers_before) && key.find("layer") != std::string::npos);
    if (!one_per_layer || value.empty()) continue;
    Json selected = Json::array();
    for (const int layer : source_layers) {
      selected.push_back(static_cast<std::size_t>(layer) < value.size() ? value[static_cast<std::size_t>(layer)] : value.back());
    }
    if (selected != value) notes.push_back("config.json: " + key + " follows the layers of the output");
    value = std::move(selected);
  }
}

}  // namespace

void select_layers(Json& config, const std::vector<int>& source_layers, std::vector<std::string>& notes) {
  if (!config.is_object()) return;
  const bool nested = config.contains("text_config") && config["text_config"].is_object();
  if (nested) select_in(config["text_config"], source_layers, notes);
  if (!nested || config.contains("num_hidden_layers")) select_in(config, source_layers, notes);
}

}  // namespace moeweld::model
