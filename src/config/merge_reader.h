#pragma once
/// The two forms of configuration, read from their YAML.

#include <yaml-cpp/yaml.h>

#include "config/yaml_reader.h"
#include "moeweld/config/merge_config.h"

namespace moeweld::config {

MergeConfig read_merge_config(const YAML::Node& root, YamlReader& reader);
MoeConfig read_moe_config(const YAML::Node& root, YamlReader& reader);

}  // namespace moeweld::config
