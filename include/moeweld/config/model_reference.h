#pragma once
/// How configs name a model: "path", "org/name", "name@revision", "a+lora", or the mapping form.

#include <optional>
#include <string>
#include <string_view>

namespace moeweld::config {

struct ModelReference {
  std::string path;
  std::optional<std::string> revision;
  std::optional<std::string> lora;  ///< path of the adapter
  std::optional<std::string> lora_revision;
  std::optional<std::string> override_architecture;

  bool operator==(const ModelReference&) const = default;
  auto operator<=>(const ModelReference&) const = default;
  /// "path@revision+lora", as a user would type it.
  std::string to_string() const;
};

/// Parses the scalar form. Throws Error(kInvalidConfig) for several '@' or '+' or an empty path.
ModelReference parse_model_reference(std::string_view text);

}  // namespace moeweld::config
