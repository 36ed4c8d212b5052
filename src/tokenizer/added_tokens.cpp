#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "moeweld/base/text.h"
#include "tokenizer/unicode.h"

namespace moeweld::tokenizer {

AddedToken parse_added_token(const Fields& fields) {
  AddedToken token;
  token.content = fields.text("content");
  token.single_word = fields.boolean("single_word", false);
  token.lstrip = fields.boolean("lstrip", false);
  token.rstrip = fields.boolean("rstrip", false);
  token.special = fields.boolean("special", false);
  token.normalized = fields.boolean("normalized", !token.special);
  return token;
}

void StringSet::add(std::string_view text, std::size_t value) {
  if (text.empty()) return;
  std::uint32_t node = 0;
  for (const char c : text) {
    const auto [entry, is_new] = nodes_[node].next.emplace(c, static_cast<std::uint32_t>(nodes_.size()));
    node = entry->second;
    if (is_new) nodes_.emplace_back();
  }
  if (!nodes_[node].value) nodes_[node].value = value;
}

std::optional<StringSet::Found> StringSet::find(std::string_view text, std::size_t start) const {
  if (empty()) return std::nullopt;
  for (std::size_t begin = start; begin < text.size(); ++begin) {
    std::optional<Found> found;
    std::uint32_t node = 0;
    for (std::size_t i = begin; i < text.size(); ++i) {
      const auto next = nodes_[node].next.find(text[i]);
      if (next == nodes_[node].next.end()) break;
      node = next->second;
      if (nodes_[node].value) found = Found{begin, i + 1, *nodes_[node].value};
    }
    if (found) return found;
  }
  return std::nullopt;
}

void AddedTokens::add(std::vector<AddedToken> tokens, const std::function<std::optional<std::int64_t>(std::string_view)>& model_id,
                      std::size_t model_size) {
  for (AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    const auto size = static_cast<std::int64_t>(model_size);
    std::optional<std::int64_t> known = id(token.content);
    if (!known) known = model_id(token.content);
    if (!known) known = largest_id_ && (*largest_id_ >= size || size == 0) ? *largest_id_ + 1 : size;
    add_with_id(std::move(token), *known);
  }
}

void AddedTokens::add_with_id(AddedToken token, std::int64_t id) {
  ids_[token.content] = id;
  by_id_[id] = token;
  in_order_.push_back(std::move(token));
  largest_id_ = std::max(largest_id_.value_or(id), id);
}

void AddedTokens::prepare(const std::function<std::string(const std::string&)>& normalize) {
  for (const AddedToken& token : in_order_) {
    const auto value = static_cast<std::size_t>(ids_.at(token.content));
    if (!token.normalized) {
      raw_.add(token.content, value);
      continue;
    }
    const std::string content = normalize(token.content);
    if (content.empty())
      throw Error(ErrorCode::kUnsupported,
                  "nothing is left of the added token '" + printable(token.content, 60) + "' when it is normalized");
    normalized_.add(content, value);
  }
}

namespace {

bool ends_in_word(std::string_view text) {
  if (text.empty()) return false;
  std::size_t position = previous_position(text, text.size());
  return is_word(next_code_point(text, position));
}

bool begins_with_word(std::string_view text) {
  std::size_t position = 0;
  return !text.empty() && is_word(next_code_point(text, position));
}

std::size_t start_of_final_space(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    const std::size_t last = previous_position(text, end);
    std::size_t position = last;
    if (!is_whitespace(next_code_point(text, position))) break;
    end = last;
  }
  return end;
}

std::size_t end_of_space(std::string_view text, std::size_t position) {
  while (position < text.size()) {
    std::size_t next = position;
    if (!is_whitespace(next_code_point(text, next))) break;
    position = next;
  }
  return position;
}

}  // namespace

std::vector<TextOrToken> AddedTokens::cut(std::string_view text, bool normalized) const {
  std::vector<TextOrToken> result;
  std::size_t covered = 0;
  const StringSet& set = normalized ? normalized_ : raw_;
  std::size_t search = 0;
  while (const auto found = set.find(text, search)) {
    search = found->end;
    const auto id = static_cast<std::int64_t>(found->value);
    const AddedToken& token = by_id_.at(id);
    std::size_t begin = found->begin, end = found->end;
    if (token.single_word && (ends_in_word(text.substr(0, begin)) || begins_with_word(text.substr(end)))) continue;
    if (token.lstrip) begin = std::max(start_of_final_space(text.substr(0, begin)), covered);
    if (token.rstrip) end = end_of_space(text, end);
    if (covered < begin) result.push_back({text.substr(covered, begin - covered), std::nullopt});
    result.push_back({{}, id});
    covered = end;
  }
  if (covered < text.size()) result.push_back({text.substr(covered), std::nullopt});
  return result;
}

std::optional<std::int64_t> AddedTokens::id(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const AddedToken* AddedTokens::token(std::int64_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &found->second;
}

}  // namespace moeweld::tokenizer
