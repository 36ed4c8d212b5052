#pragma once
/// What the readers of merge and MoE configs share: typed values with lines, key checks, and the problems found.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/yaml_tree.h"
#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"

namespace moeweld::config {

/// One place that holds keys: those with a meaning, and those that people write and that do nothing here.
struct KeyTable {
  std::string_view where;  ///< "a configuration", "an entry of models", …
  std::vector<std::string> known;
  std::vector<std::string> without_effect;
};

class Reader {
 public:
  Reader(ConfigFile& file, const std::vector<MethodInfo>& methods, const ReadOptions& options);

  void invalid(int line, std::string message);
  void unsupported(int line, std::string message);
  void note(int line, const std::string& message);

  /// Reports the keys that are not in the table. `node` must be a mapping, or that is reported and false returned.
  bool check_keys(const YamlNode& node, const KeyTable& table);
  /// Reports if the entry is no list or empty.
  bool is_filled_list(const YamlEntry& entry);

  /// Null values read as absent.
  static const YamlEntry* find(const YamlNode& node, const std::string& key);

  std::optional<std::string> text(const YamlNode& node, std::string_view what);
  std::optional<double> number(const YamlNode& node, std::string_view what);
  std::optional<std::int64_t> integer(const YamlNode& node, std::string_view what);
  std::optional<DType> dtype(const YamlEntry& entry);
  std::optional<ModelReference> model(const YamlNode& node);
  ParameterMap parameters(const YamlNode& parent);

  /// " Did you mean 'x'?" or nothing.
  static std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

  void set_method(const MethodInfo* method) { method_ = method; }
  const std::vector<MethodInfo>& methods() const { return methods_; }
  const ReadOptions& options() const { return options_; }
  /// Throws what was found: what is wrong first, then what is not supported, each in order of lines.
  void finish();

 private:
  bool is_known_parameter(std::string_view name) const;
  void check_parameter(const YamlEntry& entry);
  std::optional<ParameterSetting> setting(const YamlEntry& entry);
  bool read_value(const YamlNode& node, const std::string& name, ConditionalValue& value);
  std::optional<Scalar> scalar(const YamlNode& node, const std::string& name);
  bool read_model_path(const YamlNode& node, std::string& path, std::optional<std::string>& revision);

  ConfigFile& file_;
  const std::vector<MethodInfo>& methods_;
  const ReadOptions& options_;
  const MethodInfo* method_ = nullptr;
  std::vector<std::string> all_parameters_;
  ProblemList problems_;
};

}  // namespace moeweld::config
