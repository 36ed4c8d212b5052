#pragma once
/// A parameter as a config writes it, and how it becomes one number for one tensor (docs/configuration.md).

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace moeweld::config {

using Scalar = std::variant<bool, double, std::string>;

struct ParameterSetting;

/// {filter: …, value: …}; the value is a scalar or a gradient.
struct ConditionalValue {
  std::optional<std::string> filter;  ///< absent or "*": every tensor; else a substring of the tensor's name
  std::vector<Scalar> gradient;       ///< one entry: a plain scalar
  bool is_gradient = false;           ///< written as a list
};

/// One parameter's value. A bare scalar or gradient is one ConditionalValue without filter.
struct ParameterSetting {
  std::vector<ConditionalValue> conditions;
  int line = 0;  ///< where it stands in the file
};

struct NamedSetting {
  std::string name;
  ParameterSetting setting;
};

/// In file order; names are unique.
using ParameterMap = std::vector<NamedSetting>;

const ParameterSetting* find(const ParameterMap& parameters, std::string_view name);

/// The value for one tensor, nothing if no condition applies. Gradients of numbers interpolate linearly at t in [0, 1]; booleans and
/// strings pick entry int(t (n - 1)). A string that reads as a number is one ("1e-5" in YAML 1.1). An empty gradient yields nothing.
std::optional<Scalar> evaluate(const ParameterSetting& setting, std::string_view tensor_name, double t);

/// Numbers and booleans (0, 1) as double; strings that read as a number too; nothing else.
std::optional<double> as_number(const Scalar& scalar);
/// true/false, 0/1, "true"/"yes"/"on"/…; nothing else.
std::optional<bool> as_bool(const Scalar& scalar);

}  // namespace moeweld::config
