#include <fmt/format.h>

#include "app/run.h"
#include "moeweld/merge/method.h"

namespace moeweld::app {

namespace {

void print_parameters(const std::vector<merge::ParameterRow>& rows, const char* scope) {
  for (const merge::ParameterRow& row : rows) {
    std::string value = row.optional ? "none" : "required";
    if (row.default_value)
      value =
          row.type == merge::ParameterType::kBoolean ? (*row.default_value != 0 ? "true" : "false") : fmt::format("{}", *row.default_value);
    fmt::print("    {:<12} {:<10} {:<9} {}\n", row.name, scope, value, row.meaning);
  }
}

}  // namespace

int run_methods() {
  for (const merge::MethodRow& row : merge::method_table()) {
    if (row.internal) continue;
    fmt::print("{}  {}{}\n", row.name, row.title, row.inputs.base == merge::Base::kRequired ? "; needs a base_model" : "");
    print_parameters(row.shared_parameters, "shared");
    print_parameters(row.model_parameters, "per model");
  }
  return 0;
}

}  // namespace moeweld::app
