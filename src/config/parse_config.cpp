#include <algorithm>

#include "config/merge_reader.h"
#include "config/yaml_document.h"
#include "moeweld/config/merge_config.h"

namespace moeweld::config {

ConfigFile parse_config(const std::string& text, const std::string& path, const std::vector<MethodInfo>& methods,
                        const ReadOptions& options) {
  const YAML::Node root = load_yaml_document(text, path);
  YamlReader reader(path, methods, options);
  ConfigFile file;
  file.path = path;
  file.text = text;
  if (!root.IsMap()) {
    reader.problem(line_of(root), "a configuration must be a mapping of keys to values");
  } else if (root["experts"] || root["recipe"] || (!root["merge_method"] && root["gate_mode"])) {
    file.job = read_moe_config(root, reader);
  } else {
    file.job = read_merge_config(root, reader);
  }
  std::vector<Problem> problems = reader.problems().problems();
  std::stable_sort(problems.begin(), problems.end(), [](const Problem& a, const Problem& b) { return a.line < b.line; });
  ProblemList in_order;
  for (Problem& problem : problems) in_order.add(std::move(problem));
  in_order.throw_if_any();
  file.notes = reader.take_notes();
  file.warnings = reader.take_warnings();
  return file;
}

}  // namespace moeweld::config
