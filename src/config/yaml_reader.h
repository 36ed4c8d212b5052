#pragma once
/// Reads typed values from YAML nodes; whatever is wrong is collected with its line, and reading goes on.

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "moeweld/base/dtype.h"
#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"

namespace moeweld::config {

constexpr std::int64_t kMostExperts = 65'536;

class YamlReader {
 public:
  YamlReader(std::string path, const std::vector<MethodInfo>& methods, const ReadOptions& options)
      : path_(std::move(path)), methods_(methods), options_(options) {}

  void problem(int line, std::string message, ErrorCode code = ErrorCode::kInvalidConfig);
  void unsupported(int line, std::string message) { problem(line, std::move(message), ErrorCode::kUnsupported); }
  void note(int line, const std::string& message);
  ProblemList& problems() { return problems_; }

  /// Calls `handle(key, value)` for every entry of a mapping; a key for which it returns false is unknown: an error with the nearest of
  /// `known`, a warning under
  /// --lenient. YAML merge keys (<<) are followed.
  void read_map(const YAML::Node& node, std::string_view what, const std::vector<std::string>& known,
                const std::function<bool(const std::string& key, const YAML::Node& value)>& handle);

  std::optional<std::string> text(const YAML::Node& node, std::string_view what);
  std::optional<double> number(const YAML::Node& node, std::string_view what);
  std::optional<std::int64_t> integer(const YAML::Node& node, std::string_view what, std::int64_t least, std::int64_t most);
  std::optional<DType> dtype(const YAML::Node& node, std::string_view what);
  std::optional<ModelReference> model(const YAML::Node& node, std::string_view what);
  std::vector<std::string> texts(const YAML::Node& node, std::string_view what);
  std::vector<std::vector<std::int64_t>> token_ids(const YAML::Node& node, std::string_view what);

  /// `method` null: its name was not understood, so its own parameters are not known.
  ParameterMap parameters(const YAML::Node& node, const MethodInfo* method);

  const MethodInfo* method(std::string_view name) const;
  const std::vector<MethodInfo>& methods() const { return methods_; }
  std::vector<std::string> take_notes() { return std::move(notes_); }
  std::vector<std::string> take_warnings() { return std::move(warnings_); }
  const std::string& path() const { return path_; }

 private:
  void read_entries(const YAML::Node& node, std::string_view what, const std::vector<std::string>& known,
                    const std::function<bool(const std::string& key, const YAML::Node& value)>& handle, std::set<std::string>& seen);
  /// What to do about an unknown key; empty if nothing comes to mind.
  std::string hint(const std::string& key, const std::vector<std::string>& known) const;
  bool is_parameter(std::string_view name) const;
  void check_parameter_name(const std::string& name, int line, const MethodInfo* method);
  std::optional<ParameterSetting> setting(const std::string& name, const YAML::Node& node);
  std::optional<ConditionalValue> conditional(const std::string& name, const YAML::Node& node);
  bool gradient(const std::string& name, const YAML::Node& node, ConditionalValue& result);
  std::optional<Scalar> scalar(const std::string& name, const YAML::Node& node);

  std::string path_;
  const std::vector<MethodInfo>& methods_;
  ReadOptions options_;
  ProblemList problems_;
  std::vector<std::string> notes_;
  std::vector<std::string> warnings_;
};

}  // namespace moeweld::config
