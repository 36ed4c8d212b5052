#pragma once
/// Typed access to a component's JSON, with errors that say where in the file it is.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "moeweld/base/error.h"
#include "moeweld/formats/json.h"

namespace moeweld::tokenizer {

using formats::Json;

/// A JSON value and its place ("pre_tokenizer.pretokenizers[1]").
class Fields {
 public:
  Fields(const Json& json, std::string where, const std::string& path) : json_(&json), where_(std::move(where)), path_(&path) {}

  const Json& json() const { return *json_; }
  const std::string& where() const { return where_; }
  const std::string& path() const { return *path_; }

  /// The member, or nothing if it is absent or null. Refuses this value if it is no object.
  std::optional<Fields> find(const char* key) const;
  Fields at(const char* key) const;
  Fields element(std::size_t index) const;

  std::string text(const char* key) const;
  std::optional<std::string> optional_text(const char* key) const;
  bool boolean(const char* key) const;
  bool boolean(const char* key, bool otherwise) const;
  /// An array, whose elements element(i) gives.
  std::size_t num_elements() const;
  std::string as_text() const;

  [[noreturn]] void refuse(const std::string& message) const;
  /// "… 'Name' is not supported" with what is.
  [[noreturn]] void refuse_component(const std::string& kind, const std::string& name, const std::string& supported) const;
  /// Adds this place to an Error without path that `action` throws.
  template <typename Action>
  auto placed(Action&& action) const {
    try {
      return action();
    } catch (const Error& error) {
      if (!error.problems().front().path.empty()) throw;
      throw Error(error.code(), "'" + where_ + "': " + error.problems().front().message, *path_);
    }
  }

 private:
  const Json* json_;
  std::string where_;
  const std::string* path_;
};

}  // namespace moeweld::tokenizer
