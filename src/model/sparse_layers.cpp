#include <algorithm>

#include "model/config_fields.h"
#include "moeweld/base/error.h"
#include "moeweld/model/family.h"

namespace moeweld::model {
namespace {

std::int64_t whole_number(const Json& config, std::string_view key, std::int64_t fallback, std::int64_t minimum) {
  const Json* value = field(config, key);
  if (value == nullptr) return fallback;
  if (!value->is_number_integer() || value->get<std::int64_t>() < minimum) {
    throw Error(ErrorCode::kInvalidInput, "'" + std::string(key) + "' is " + value->dump() + ", but must be a whole number of at least " +
                                              std::to_string(minimum) + ".");
  }
  return value->get<std::int64_t>();
}

void read_layer_types(const Json& types, std::vector<bool>& result) {
  for (std::size_t layer = 0; layer < result.size(); ++layer) {
    // Layers of multi-token prediction stand after the list.
    if (layer >= types.size()) {
      result[layer] = true;
      continue;
    }
    const std::string type = types[layer].is_string() ? types[layer].get<std::string>() : types[layer].dump();
    if (type != "sparse" && type != "dense") {
      throw Error(ErrorCode::kInvalidInput, "'mlp_layer_types' says '" + type + "'; layers are 'sparse' or 'dense'.");
    }
    result[layer] = type == "sparse";
  }
}

void read_sparse_step(const Json& config, std::vector<bool>& result) {
  const std::int64_t step = whole_number(config, "decoder_sparse_step", 1, 1);
  for (std::size_t layer = 0; layer < result.size(); ++layer) result[layer] = (static_cast<std::int64_t>(layer) + 1) % step == 0;
  const Json* dense = field(config, "mlp_only_layers");
  if (dense == nullptr) return;
  if (!dense->is_array()) throw Error(ErrorCode::kInvalidInput, "'mlp_only_layers' must be a list of layers.");
  for (const Json& layer : *dense) {
    if (!layer.is_number_integer()) throw Error(ErrorCode::kInvalidInput, "'mlp_only_layers' must be a list of layers.");
    const auto index = layer.get<std::int64_t>();
    if (index >= 0 && index < static_cast<std::int64_t>(result.size())) result[static_cast<std::size_t>(index)] = false;
  }
}

}  // namespace

std::vector<bool> sparse_layers(const Family& family, const formats::Json& config, int num_layers) {
  std::vector<bool> result(static_cast<std::size_t>(std::max(0, num_layers)), family.sparse_layers == SparseLayers::kAll);
  if (family.sparse_layers == SparseLayers::kNone || family.sparse_layers == SparseLayers::kAll) return result;
  if (const Json* types = field(config, "mlp_layer_types"); types != nullptr && types->is_array()) {
    read_layer_types(*types, result);
  } else if (family.sparse_layers == SparseLayers::kSparseStep) {
    read_sparse_step(config, result);
  } else {
    const std::int64_t first = whole_number(config, "first_k_dense_replace", family.default_dense_layers, 0);
    const std::int64_t step = whole_number(config, "moe_layer_freq", 1, 1);
    for (std::size_t layer = 0; layer < result.size(); ++layer) {
      const auto index = static_cast<std::int64_t>(layer);
      result[layer] = index >= first && index % step == 0;
    }
  }
  return result;
}

}  // namespace moeweld::model
