#include "moeweld/config/resolve.h"

namespace moeweld::config {

std::optional<Scalar> resolve(std::string_view parameter, std::span<const ParameterMap* const> scopes, std::string_view tensor_name,
                              double t) {
  for (const ParameterMap* scope : scopes) {
    if (scope == nullptr) continue;
    const ParameterSetting* setting = find(*scope, parameter);
    if (setting == nullptr) continue;
    if (std::optional<Scalar> value = evaluate(*setting, tensor_name, t)) return value;
  }
  return std::nullopt;
}

}  // namespace moeweld::config
