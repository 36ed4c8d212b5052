#pragma once
/// Reading single fields of config.json without assuming types: it is somebody else's file.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "moeweld/formats/json.h"

namespace moeweld::model {

using formats::Json;

/// Null where the key is absent or its value is null.
const Json* field(const Json& object, std::string_view key);
/// Empty unless it is a text.
std::string text_field(const Json& object, std::string_view key);
std::optional<double> number_field(const Json& object, std::string_view key);
/// False unless it is the boolean true.
bool is_true(const Json& object, std::string_view key);
/// `fallback` where field() finds nothing.
Json value_or(const Json& object, std::string_view key, Json fallback);

/// The object that describes the language model: text_config where there is one.
const Json& text_config(const Json& config);

/// Whole numbers as integers: 10000, not 10000.0.
Json plain_number(double value);

}  // namespace moeweld::model
