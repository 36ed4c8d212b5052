#pragma once
/// Upcycling recipes, and the choice of sparse layers.

#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

#include "config/yaml_reader.h"
#include "moeweld/config/merge_config.h"

namespace moeweld::config {

/// Keys of the top level that belong to recipes, `recipe` first.
const std::vector<std::string>& recipe_keys();

/// Reads one of them into `recipe`.
void read_recipe_key(const std::string& key, const YAML::Node& value, YamlReader& reader, Recipe& recipe);

/// Which of the keys that are there does not fit the recipe, and which is missing. `config.lines` says what is there.
void check_recipe(const MoeConfig& config, YamlReader& reader);

/// `all`, `{every: n, first: m}` or a list of layers.
MoeLayers read_moe_layers(const YAML::Node& node, YamlReader& reader);

}  // namespace moeweld::config
