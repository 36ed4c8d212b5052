#include "plan/output_config.h"

#include "moeweld/model/model_config.h"

namespace moeweld::plan {

namespace {

using formats::Json;

/// Output layer → layer of the source that gives the slice its tensors.
std::vector<int> source_layers(const Module& module) {
  std::vector<int> result;
  for (const Slice& slice : module.slices) {
    const SliceSource& donor = slice.sources[static_cast<std::size_t>(slice.donor)];
    for (int layer = 0; layer < slice.num_layers; ++layer) result.push_back(donor.first_layer + layer);
  }
  return result;
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
    const std::vector<int> layers = source_layers(module);
    if (module.name == "default" || modules.size() == 1) {
      model::select_layers(config, layers, notes);
    } else if (const std::string key = module.name + "_layers"; config.contains(key)) {
      config[key] = layers.size();
    } else {
      notes.push_back("config.json has no key for the number of layers of module '" + module.name + "'; set it to " + std::to_string(layers.size()) + " if it changed");
    }
  }
  model::set_dtype(config, dtype);
  if (vocabulary_rows) set_where_it_is(config, "vocab_size", *vocabulary_rows);
  if (donor.catalog.family != nullptr) {
    config["tie_word_embeddings"] = !matching.has_head;
    const double default_theta = donor.catalog.family->name == "mixtral" ? 1e6 : 1e4;
    model::write_rope(config, model::read_rope(config, default_theta));
    // transformers 5 writes num_local_experts; a Mixtral without head_dim crashes where its rope is scaled.
    if (donor.catalog.family->name == "mixtral" && !(config.contains("head_dim") && config["head_dim"].is_number_integer())) {
      config["head_dim"] = config["hidden_size"].get<std::int64_t>() / config["num_attention_heads"].get<std::int64_t>();
    }
  }
  return config;
}

}  // namespace moeweld::plan
