#pragma once
/// Parameters of a merge method for one tensor: scopes, filters, gradients, defaults.

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"
#include "moeweld/merge/method.h"
#include "plan/grouped_problems.h"

namespace moeweld::plan {

/// Brings every value in the config that the method knows to its type (numbers to double, booleans to bool, so that [0, 1] is a choice for
/// a boolean and a gradient for a number). Reports values that have no such meaning or are not finite, with their line, and notes
/// parameters without effect.
void normalize_parameters(config::MergeConfig& config, const merge::MethodRow& method, const std::string& config_path,
                          ProblemList& problems, std::vector<std::string>& notes);

/// Resolves parameters tensor by tensor and remembers which were missing: one message for each parameter and model.
class ParameterResolver {
 public:
  using Scopes = std::span<const config::ParameterMap* const>;

  ParameterResolver(std::string method, std::string config_path) : method_(std::move(method)), config_path_(std::move(config_path)) {}

  /// The value for `tensor_name` at t: of the first scope (null ones are skipped) that yields one, else the default, NaN for optional
  /// parameters without one. `model` and `line` are for the message; an empty model means that the parameter is shared.
  double resolve(const merge::ParameterRow& parameter, Scopes scopes, const std::string& tensor_name, double t, const std::string& model,
                 int line);

  void report(ProblemList& problems) const { missing_.report(problems); }

 private:
  std::string method_;
  std::string config_path_;
  GroupedProblems missing_;
};

}  // namespace moeweld::plan
