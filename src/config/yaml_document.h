#pragma once
/// YAML text from outside to a node tree that is safe to walk.

#include <yaml-cpp/yaml.h>

#include <string>

#include "moeweld/base/error.h"

namespace moeweld::config {

/// Line of a node, 1-based; 0 where yaml-cpp does not know it.
int line_of(const YAML::Node& node);

/// The one document of the text. Refused: more than 10 MB, not UTF-8, nesting beyond 32 levels (looked for before yaml-cpp recurses),
/// syntax errors (with line and column), several documents (kUnsupported), no document, duplicate keys, aliases that expand to more than
/// 10^5 nodes. Throws Error with `path`.
YAML::Node load_yaml_document(const std::string& text, const std::string& path);

}  // namespace moeweld::config
