#pragma once
/// Chat formats that configs may name, as Jinja texts of our own.

#include <optional>
#include <string>
#include <string_view>

namespace moeweld::plan {

std::optional<std::string> named_chat_template(std::string_view name);
/// "chatml, llama3, …", for messages.
std::string chat_template_names();

}  // namespace moeweld::plan
