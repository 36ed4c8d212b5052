#pragma once
/// One component of a tokenizer.json, run alone.

#include <string>
#include <string_view>
#include <vector>

#include "moeweld/formats/json.h"
#include "moeweld/tokenizer/tokenizer.h"
#include "tokenizer/normalizers.h"
#include "tokenizer/pre_tokenizers.h"
#include "tokenizer/unicode.h"

namespace moeweld::tokenizer {

/// What a normalizer makes of a text.
inline std::string normalized(const std::string& json, const std::string& text) {
  const std::string path = "tokenizer.json";
  const Json parsed = formats::parse_json(json, path);
  NormalizedText result{text, text.empty() ? 0 : character_length(text[0])};
  make_normalizer(Fields(parsed, "normalizer", path))->apply(result);
  return result.text;
}

/// The pieces that a pre-tokenizer cuts a text into.
inline std::vector<std::string> pieces(const std::string& json, const std::string& text) {
  const std::string path = "tokenizer.json";
  const Json parsed = formats::parse_json(json, path);
  std::vector<NormalizedText> all{{text, text.empty() ? 0 : character_length(text[0])}};
  make_pre_tokenizer(Fields(parsed, "pre_tokenizer", path))->apply(all);
  std::vector<std::string> result;
  for (NormalizedText& piece : all) result.push_back(std::move(piece.text));
  return result;
}

/// A tokenizer.json of parts; empty parts are null.
inline std::string tokenizer_json(const std::string& model, const std::string& normalizer = "null",
                                  const std::string& pre_tokenizer = "null", const std::string& added_tokens = "[]") {
  return R"({"version": "1.0", "truncation": null, "padding": null, "added_tokens": )" + added_tokens + R"(, "normalizer": )" + normalizer +
         R"(, "pre_tokenizer": )" + pre_tokenizer + R"(, "post_processor": null, "decoder": null, "model": )" + model + "}";
}

/// The tokens of a text, as the vocabulary writes them.
inline std::vector<std::string> tokens(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> result;
  for (const std::int64_t id : tokenizer.encode(text)) result.push_back(tokenizer.id_to_token(id).value());
  return result;
}

using Strings = std::vector<std::string>;
using Ids = std::vector<std::int64_t>;

}  // namespace moeweld::tokenizer
