#include "plan/parameters.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <variant>

namespace moeweld::plan {
namespace {

using config::ParameterMap;
using config::Scalar;

const merge::ParameterRow* find_row(const merge::MethodRow& method, std::string_view name) {
  for (const auto* rows : {&method.shared_parameters, &method.model_parameters}) {
    for (const merge::ParameterRow& row : *rows) {
      if (row.name == name) return &row;
    }
  }
  return nullptr;
}

std::string shown(const Scalar& scalar) {
  if (const auto* text = std::get_if<std::string>(&scalar)) return "'" + *text + "'";
  if (const auto* flag = std::get_if<bool>(&scalar)) return *flag ? "true" : "false";
  return std::to_string(std::get<double>(scalar));
}

class Normalizer {
 public:
  Normalizer(const merge::MethodRow& method, const std::string& config_path, ProblemList& problems)
      : method_(method), config_path_(config_path), problems_(problems) {}

  void operator()(ParameterMap& parameters) {
    for (config::NamedSetting& named : parameters) {
      const merge::ParameterRow* row = find_row(method_, named.name);
      if (row == nullptr) continue;  // parse_config has refused or warned of it
      if (row->no_effect) without_effect_.insert(named.name);
      for (config::ConditionalValue& value : named.setting.conditions) {
        for (Scalar& scalar : value.gradient) normalize(scalar, *row, named.setting.line);
      }
    }
  }

  const std::set<std::string>& without_effect() const { return without_effect_; }

 private:
  void normalize(Scalar& scalar, const merge::ParameterRow& row, int line) {
    if (row.type == merge::ParameterType::kBoolean) {
      if (const auto flag = config::as_bool(scalar)) {
        scalar = *flag;
        return;
      }
      problem(row, line, "must be true or false, not " + shown(scalar) + ".");
      return;
    }
    const auto number = config::as_number(scalar);
    if (!number) {
      problem(row, line, "must be a number, not " + shown(scalar) + ".");
    } else if (!std::isfinite(*number)) {
      problem(row, line, "must be a finite number.");
    } else {
      scalar = *number;
    }
  }

  void problem(const merge::ParameterRow& row, int line, const std::string& what) {
    problems_.add({ErrorCode::kInvalidConfig,
                   "The parameter '" + std::string(row.name) + "' of '" + std::string(method_.name) + "' " + what,
                   config_path_,
                   line,
                   {}});
  }

  const merge::MethodRow& method_;
  const std::string& config_path_;
  ProblemList& problems_;
  std::set<std::string> without_effect_;
};

}  // namespace

void normalize_parameters(config::MergeConfig& config, const merge::MethodRow& method, const std::string& config_path,
                          ProblemList& problems, std::vector<std::string>& notes) {
  Normalizer normalize(method, config_path, problems);
  normalize(config.parameters);
  for (config::OutputModule& module : config.modules) {
    normalize(module.parameters);
    for (config::InputModel& input : module.models) normalize(input.parameters);
    for (config::OutputSlice& slice : module.slices) {
      normalize(slice.parameters);
      for (config::InputSlice& input : slice.sources) normalize(input.parameters);
    }
  }
  for (const std::string& name : normalize.without_effect()) notes.push_back("The parameter '" + name + "' has no effect here.");
}

double ParameterResolver::resolve(const merge::ParameterRow& parameter, Scopes scopes, const std::string& tensor_name, double t,
                                  const std::string& model, int line) {
  for (const ParameterMap* scope : scopes) {
    const config::ParameterSetting* setting = scope == nullptr ? nullptr : config::find(*scope, parameter.name);
    if (setting == nullptr) continue;
    const auto value = config::evaluate(*setting, tensor_name, t);
    if (!value) continue;
    if (const auto number = config::as_number(*value)) return *number;
  }
  if (parameter.default_value) return *parameter.default_value;
  if (!parameter.optional) {
    const std::string group = std::string(parameter.name) + "\n" + model;
    if (missing_.contains(group)) {
      missing_.count(group);
    } else {
      const std::string name(parameter.name);
      const std::string message =
          model.empty()
              ? "has no value for the parameter '" + name + "', which the method '" + method_ + "' needs. Give it under parameters:."
              : "has no value for the parameter '" + name + "' of the model '" + model + "', which the method '" + method_ +
                    "' needs for each model. Give it under the model's parameters:, or for all.";
      missing_.add(group, {ErrorCode::kInvalidConfig, message, config_path_, line, tensor_name});
    }
  }
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace moeweld::plan
