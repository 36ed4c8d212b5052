#pragma once
/// A YAML document as a tree with lines: aliases shared, merge keys applied, duplicate keys and bombs refused.

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace moeweld::config {

struct YamlNode;
using YamlPointer = std::shared_ptr<const YamlNode>;

struct YamlEntry {
  std::string key;
  int line = 0;
  YamlPointer value;
};

struct YamlNode {
  enum class Kind { kScalar, kList, kMapping };
  Kind kind = Kind::kScalar;
  int line = 0;
  std::string text;     ///< of a scalar
  bool is_plain = true; ///< a scalar without quotes, to be resolved by YAML 1.1's rules
  std::vector<YamlPointer> items;
  std::vector<YamlEntry> entries;
  std::size_t num_nodes = 1;  ///< of the tree below, with aliases expanded
  int height = 1;

  bool is_null() const;
  const YamlEntry* find(const std::string& key) const;
};

/// Throws Error(kInvalidConfig) with the line for what is not YAML, or is too deep or too large; Error(kUnsupported) for a second document.
YamlPointer parse_yaml(const std::string& text, const std::string& path);

}  // namespace moeweld::config
