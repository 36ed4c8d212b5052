#include "tokenizer/vocabulary.h"

#include <algorithm>

#include "moeweld/base/text.h"

namespace moeweld::tokenizer {

bool Vocabulary::add(std::string token, std::int64_t id) {
  if (tokens_.count(id) != 0) return false;
  const auto [entry, is_new] = ids_.emplace(std::move(token), id);
  if (!is_new) return false;
  tokens_.emplace(id, entry->first);
  id_limit_ = std::max(id_limit_, id + 1);
  return true;
}

Vocabulary Vocabulary::parse(const Fields& fields) {
  const Json& json = fields.json();
  if (!json.is_object()) fields.refuse("is no JSON object");
  Vocabulary result;
  result.ids_.reserve(json.size());
  result.tokens_.reserve(json.size());
  for (const auto& [token, value] : json.items()) {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > static_cast<std::uint64_t>(kLargestTokenId))
      fields.refuse("gives token '" + printable(token, 60) + "' the id " + printable(value.dump(), 40) +
                    "; ids are whole numbers from 0 to " + std::to_string(kLargestTokenId));
    const auto id = value.get<std::int64_t>();
    if (!result.add(token, id)) {
      fields.refuse("gives the id " + std::to_string(id) + " to '" + printable(token, 60) + "' and to '" +
                    printable(result.token(id).value_or(""), 60) + "'");
    }
  }
  return result;
}

}  // namespace moeweld::tokenizer
