#pragma once
/// What the files beside tokenizer.json and tokenizer.model say.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "moeweld/storage/storage.h"
#include "tokenizer/added_tokens.h"

namespace moeweld::tokenizer {

struct SpecialTokens {
  /// Set if one of the files says something of it; the inner value is missing if it says null.
  std::optional<std::optional<std::string>> bos, eos, unknown;
  std::string bos_path, eos_path;                   ///< the file that says so
  std::map<std::int64_t, AddedToken> added_tokens;  ///< added_tokens_decoder of tokenizer_config.json, else added_tokens.json
  /// What the files name as a special token in any part (bos_token, …, additional_special_tokens).
  std::set<std::string, std::less<>> named;
  bool legacy = true;  ///< tokenizer_config.json's "legacy"
  std::string tokenizer_class;
};

SpecialTokens read_special_tokens(Storage& storage, const std::string& directory);

}  // namespace moeweld::tokenizer
