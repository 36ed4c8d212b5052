#include "plan/output_config.h"

#include <algorithm>

#include "moeweld/base/error.h"
#include "moeweld/model/model_config.h"

namespace moeweld::plan {

namespace {

using formats::Json;

/// Output layer → layer of the donor's config.json that describes it: the same layer of the source that gives the slice its tensors, or,
/// where that is a deeper model, the donor's last.
std::vector<int> source_layers(const Module& module, int num_donor_layers) {
  std::vector<int> result;
  for (const Slice& slice : module.slices) {
    const SliceSource& source = slice.sources[static_cast<std::size_t>(slice.donor)];
    for (int layer = 0; layer < slice.num_layers; ++layer)
      result.push_back(std::min(source.first_layer + layer, std::max(0, num_donor_layers - 1)));
  }
  return result;
}

int most_layers_of(const InputModel& donor) {
  int result = 0;
  for (const auto& [prefix, count] : donor.catalog.num_layers) result = std::max(result, count);
  return result;
}

/// A Mixtral without head_dim crashes its readers where rope is scaled.
void write_head_dim(Json& config, const std::string& path) {
  if (config.contains("head_dim") && config["head_dim"].is_number_integer()) return;
  const auto positive = [&](const char* key) {
    if (!config.contains(key) || !config[key].is_number_integer() || config[key].get<std::int64_t>() < 1) {
      throw Error(ErrorCode::kInvalidInput, "has no usable '" + std::string(key) + "', a whole number of at least 1",
                  path + "/config.json");
    }
    return config[key].get<std::int64_t>();
  };
  config["head_dim"] = positive("hidden_size") / positive("num_attention_heads");
}

void set_where_it_is(Json& config, const char* key, const Json& value) {
  const bool nested = config.contains("text_config") && config["text_config"].is_object();
  if (nested && config["text_config"].contains(key)) config["text_config"][key] = value;
  if (!nested || config.contains(key)) config[key] = value;
}

}  // namespace

formats::Json output_config(const InputModel& donor, const std::vector<Module>& modules, const Matching& matching, DType dtype,
                            std::optional<std::uint64_t> vocabulary_rows, std::vector<std::string>& notes) {
  Json config = donor.checkpoint->config;
  if (donor.reference.override_architecture) config["architectures"] = {*donor.reference.override_architecture};
  for (const Module& module : modules) {
    if (module.slices.empty() || module.slices.front().whole_model) continue;
    const std::vector<int> layers = source_layers(module, most_layers_of(donor));
    if (module.name == "default" || modules.size() == 1) {
      model::select_layers(config, layers, notes);
    } else if (const std::string key = module.name + "_layers"; config.contains(key)) {
      config[key] = layers.size();
    } else {
      notes.push_back("config.json has no key for the number of layers of module '" + module.name + "'; set it to " +
                      std::to_string(layers.size()) + " if it changed");
    }
  }
  model::set_dtype(config, dtype);
  model::remove_quantization(config);
  if (vocabulary_rows) set_where_it_is(config, "vocab_size", *vocabulary_rows);
  if (donor.catalog.family != nullptr) {
    config["tie_word_embeddings"] = !matching.has_head;
    model::write_rope(config, model::read_rope(config, model::default_rope_theta(config)));
    model::write_num_experts(config, *donor.catalog.family);
    const std::string mtp_key(donor.catalog.family->num_mtp_layers_key);
    if (!mtp_key.empty() && config.contains(mtp_key)) config[mtp_key] = matching.num_mtp_layers;
    if (donor.catalog.family->name == "mixtral") write_head_dim(config, donor.checkpoint->directory);
  }
  return config;
}

}  // namespace moeweld::plan
