#pragma once
/// Plain scalars as YAML 1.1 reads them, which is what PyYAML does.

#include <optional>
#include <string_view>

namespace moeweld::config {

bool is_yaml_null(std::string_view text);
std::optional<bool> yaml_bool(std::string_view text);
/// Integers (decimal, octal, binary, hexadecimal, with underscores) and floats. "1e-5" is none: YAML 1.1 asks for a dot. May be infinite or NaN.
std::optional<double> yaml_number(std::string_view text);
/// What Python's float() reads, if finite: "1e-5", " 0.5 ".
std::optional<double> decimal_number(std::string_view text);

}  // namespace moeweld::config
