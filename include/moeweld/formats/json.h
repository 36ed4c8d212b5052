#pragma once
/// JSON from untrusted files: UTF-8, size and depth bounded, no duplicate keys.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace moeweld::formats {

/// Keeps the order of keys, so that a rewritten config.json reads like its source.
using Json = nlohmann::ordered_json;

struct JsonLimits {
  std::uint64_t max_bytes = 100'000'000;
  int max_depth = 64;
};

/// Throws Error(kInvalidInput) naming `path`: not UTF-8, syntax (with byte position), duplicate key, too deep, too large, NaN or Infinity
/// literals, numbers out of range.
Json parse_json(std::string_view text, const std::string& path, JsonLimits limits = {});

}  // namespace moeweld::formats
