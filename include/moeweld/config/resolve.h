#pragma once
/// A parameter through its scopes: the first that yields a value wins.

#include <optional>
#include <span>
#include <string_view>

#include "moeweld/config/parameter.h"

namespace moeweld::config {

/// scopes: the model's entry, the slice, the module, the configuration, in this order; null pointers are passed over. A scope whose
/// conditions do not apply to `tensor_name` yields nothing, and the next one is asked.
std::optional<Scalar> resolve(std::string_view parameter, std::span<const ParameterMap* const> scopes, std::string_view tensor_name,
                              double t);

}  // namespace moeweld::config
