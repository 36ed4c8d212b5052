#include "moeweld/config/model_reference.h"

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::config {

namespace {

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// "name@revision"
void split_revision(std::string_view text, std::string_view whole, std::string& path, std::optional<std::string>& revision) {
  const std::size_t at = text.find('@');
  path = trim(text.substr(0, at));
  if (path.empty()) throw Error(ErrorCode::kInvalidConfig, "model reference '" + printable(whole) + "' names no model");
  if (at == std::string_view::npos) return;
  const std::string_view rest = trim(text.substr(at + 1));
  if (rest.find('@') != std::string_view::npos) {
    throw Error(ErrorCode::kInvalidConfig, "model reference '" + printable(whole) + "' has more than one '@'; the form is name@revision");
  }
  if (rest.empty()) throw Error(ErrorCode::kInvalidConfig, "model reference '" + printable(whole) + "' has no revision after '@'");
  revision = std::string(rest);
}

}  // namespace

std::string ModelReference::to_string() const {
  std::string result = path;
  if (revision) result += "@" + *revision;
  if (lora) result += "+" + *lora;
  if (lora_revision) result += "@" + *lora_revision;
  return result;
}

ModelReference parse_model_reference(std::string_view text) {
  ModelReference reference;
  const std::size_t plus = text.find('+');
  split_revision(text.substr(0, plus), text, reference.path, reference.revision);
  if (plus == std::string_view::npos) return reference;
  const std::string_view adapter = text.substr(plus + 1);
  if (adapter.find('+') != std::string_view::npos) {
    throw Error(ErrorCode::kInvalidConfig, "model reference '" + printable(text) + "' has more than one '+'; the form is model+lora");
  }
  split_revision(adapter, text, reference.lora.emplace(), reference.lora_revision);
  return reference;
}

}  // namespace moeweld::config
