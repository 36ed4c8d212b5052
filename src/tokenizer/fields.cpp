#include "tokenizer/fields.h"

#include "moeweld/base/text.h"

namespace moeweld::tokenizer {

void Fields::refuse(const std::string& message) const {
  throw Error(ErrorCode::kInvalidInput, (where_.empty() ? "" : "'" + where_ + "' ") + message, *path_);
}

void Fields::refuse_component(const std::string& kind, const std::string& name, const std::string& supported) const {
  throw Error(ErrorCode::kUnsupported,
              "'" + where_ + "' is the " + kind + " '" + printable(name, 60) + "', which is not supported; there are " + supported, *path_);
}

std::optional<Fields> Fields::find(const char* key) const {
  if (!json_->is_object()) refuse("is no JSON object");
  const auto found = json_->find(key);
  if (found == json_->end() || found->is_null()) return std::nullopt;
  return Fields(*found, where_.empty() ? key : where_ + "." + key, *path_);
}

Fields Fields::at(const char* key) const {
  auto found = find(key);
  if (!found) refuse(std::string("has no '") + key + "'");
  return *found;
}

Fields Fields::element(std::size_t index) const { return Fields((*json_)[index], where_ + "[" + std::to_string(index) + "]", *path_); }

std::size_t Fields::num_elements() const {
  if (!json_->is_array()) refuse("is no list");
  return json_->size();
}

std::string Fields::as_text() const {
  if (!json_->is_string()) refuse("is no string");
  return json_->get<std::string>();
}

std::string Fields::text(const char* key) const { return at(key).as_text(); }

std::optional<std::string> Fields::optional_text(const char* key) const {
  const auto found = find(key);
  return found ? std::optional(found->as_text()) : std::nullopt;
}

bool Fields::boolean(const char* key) const {
  const Fields found = at(key);
  if (!found.json().is_boolean()) found.refuse("is neither true nor false");
  return found.json().get<bool>();
}

bool Fields::boolean(const char* key, bool otherwise) const { return find(key) ? boolean(key) : otherwise; }

}  // namespace moeweld::tokenizer
