#include "moeweld/formats/json.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::formats {
namespace {

std::string without_library_prefix(std::string_view message) {
  // "[json.exception.parse_error.101] parse error at line 1, column 3: syntax error …"
  if (const auto bracket = message.find("] "); bracket != std::string_view::npos) message.remove_prefix(bracket + 2);
  return printable(message, 300);
}

/// Builds the document. Appends members without looking for them first, which ordered_json's own parser does in quadratic time.
class DocumentBuilder {
 public:
  DocumentBuilder(std::string_view text, const std::string& path, int max_depth) : text_(text), path_(path), max_depth_(max_depth) {}

  // What nlohmann::json's SAX parser calls; names and types are its own.
  bool null() { return place(Json(nullptr)); }
  bool boolean(bool value) { return place(Json(value)); }
  bool number_integer(Json::number_integer_t value) { return place(Json(value)); }
  bool number_unsigned(Json::number_unsigned_t value) { return place(Json(value)); }
  bool number_float(Json::number_float_t value, const std::string&) { return place(Json(value)); }
  bool string(std::string& value) { return place(Json(std::move(value))); }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool key(std::string& value) {
    key_ = std::move(value);
    return true;
  }
  bool end_object() {
    refuse_duplicate_keys(open_.back()->get_ref<const Json::object_t&>());
    open_.pop_back();
    return true;
  }
  bool end_array() {
    open_.pop_back();
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) {
    std::string message = "this is not valid JSON, at byte " + std::to_string(position) + ": " + without_library_prefix(error.what());
    if (is_number_word(position)) message += ". NaN and Infinity are not JSON";
    throw Error(ErrorCode::kInvalidInput, std::move(message), path_);
  }

  Json take() { return std::move(root_); }

 private:
  Json* add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      auto& elements = parent.get_ref<Json::array_t&>();
      elements.push_back(std::move(value));
      return &elements.back();
    }
    auto& members = parent.get_ref<Json::object_t&>();
    members.emplace_back(std::move(key_), std::move(value));
    return &members.back().second;
  }

  bool place(Json value) {
    add(std::move(value));
    return true;
  }

  bool open(Json value) {
    if (static_cast<int>(open_.size()) >= max_depth_) {
      throw Error(ErrorCode::kInvalidInput, "the JSON is nested deeper than " + std::to_string(max_depth_) + " levels", path_);
    }
    // The pointer stays valid: a parent does not grow while its child is open.
    open_.push_back(add(std::move(value)));
    return true;
  }

  void refuse_duplicate_keys(const Json::object_t& members) const {
    if (members.size() < 2) return;
    std::vector<std::string_view> keys;
    keys.reserve(members.size());
    for (const auto& member : members) keys.emplace_back(member.first);
    std::sort(keys.begin(), keys.end());
    if (const auto twice = std::adjacent_find(keys.begin(), keys.end()); twice != keys.end()) {
      throw Error(ErrorCode::kInvalidInput,
                  "the key '" + printable(*twice) + "' occurs twice in one JSON object; which of the two is meant cannot be known", path_);
    }
  }

  bool is_number_word(std::size_t position) const {
    const std::string_view before = text_.substr(0, std::min(position, text_.size()));
    const std::string_view near = text_.substr(before.size() > 2 ? before.size() - 2 : 0, 12);
    return near.find("NaN") != std::string_view::npos || near.find("Inf") != std::string_view::npos;
  }

  std::string_view text_;
  const std::string& path_;
  int max_depth_;
  Json root_;
  std::vector<Json*> open_;
  std::string key_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& path, JsonLimits limits) {
  if (text.size() > limits.max_bytes) {
    throw Error(ErrorCode::kInvalidInput,
                "the JSON has " + std::to_string(text.size()) + " bytes, but at most " + std::to_string(limits.max_bytes) + " are accepted",
                path);
  }
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    throw Error(ErrorCode::kInvalidInput, "the JSON is empty (" + std::to_string(text.size()) + " bytes)", path);
  }
  if (text.substr(0, 3) == "\xef\xbb\xbf") {
    throw Error(ErrorCode::kInvalidInput, "the JSON starts with a byte order mark; save it as UTF-8 without one", path);
  }
  // The parser takes a zero byte for the end and would not look at what follows.
  if (const auto zero = text.find('\0'); zero != std::string_view::npos) {
    throw Error(ErrorCode::kInvalidInput, "the JSON holds a zero byte, at byte " + std::to_string(zero), path);
  }
  if (!is_utf8(text)) throw Error(ErrorCode::kInvalidInput, "the JSON is not valid UTF-8", path);
  DocumentBuilder builder(text, path, limits.max_depth);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

}  // namespace moeweld::formats
