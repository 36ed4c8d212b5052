#include "tokenizer/special_tokens.h"

#include <charconv>

#include "moeweld/base/text.h"
#include "tokenizer/vocabulary.h"

namespace moeweld::tokenizer {
namespace {

constexpr std::uint64_t kMaxConfigBytes = 50'000'000;

/// "text" or {"content": "text"}.
std::string token_text(const Fields& fields) { return fields.json().is_object() ? fields.text("content") : fields.as_text(); }

/// null, "text" or {"content": "text"}.
void read_token(const Fields& fields, const char* key, std::optional<std::optional<std::string>>& token, std::string& path) {
  if (token || !fields.json().is_object() || !fields.json().contains(key)) return;
  path = fields.path();
  const auto found = fields.find(key);
  if (!found) {
    token = std::optional<std::string>();
    return;
  }
  token = token_text(*found);
}

void read_names(const Fields& fields, std::set<std::string, std::less<>>& names) {
  for (const char* key : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    if (const auto found = fields.find(key)) names.insert(token_text(*found));
  }
  const auto list = fields.find("additional_special_tokens");
  for (std::size_t i = 0; list && i < list->num_elements(); ++i) names.insert(token_text(list->element(i)));
}

std::int64_t parse_id(const Fields& fields, const std::string& text) {
  std::int64_t id = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || id < 0 || id > kLargestTokenId)
    fields.refuse("has the id '" + printable(text, 40) + "'; ids are whole numbers from 0 to " + std::to_string(kLargestTokenId));
  return id;
}

void read_decoder(const Fields& decoder, std::map<std::int64_t, AddedToken>& tokens) {
  if (!decoder.json().is_object()) decoder.refuse("is no JSON object");
  for (const auto& [key, value] : decoder.json().items())
    tokens[parse_id(decoder, key)] = parse_added_token(Fields(value, decoder.where() + "." + key, decoder.path()));
}

void read_added_tokens_file(const Fields& file, std::map<std::int64_t, AddedToken>& tokens) {
  if (!file.json().is_object()) file.refuse("is no JSON object");
  for (const auto& [content, value] : file.json().items()) {
    AddedToken token;
    token.content = content;
    token.normalized = false;
    tokens[parse_id(file, value.dump())] = std::move(token);
  }
}

}  // namespace

SpecialTokens read_special_tokens(Storage& storage, const std::string& directory) {
  SpecialTokens result;
  std::string unknown_path;
  const auto read = [&](const char* name, auto&& use) {
    const std::string path = directory + "/" + name;
    if (!storage.exists(path)) return;
    const Json json = formats::parse_json(storage.read_text(path, kMaxConfigBytes), path);
    use(Fields(json, "", path));
  };
  const auto read_tokens = [&](const Fields& fields) {
    read_token(fields, "bos_token", result.bos, result.bos_path);
    read_token(fields, "eos_token", result.eos, result.eos_path);
    read_token(fields, "unk_token", result.unknown, unknown_path);
    read_names(fields, result.named);
  };
  read("tokenizer_config.json", [&](const Fields& fields) {
    read_tokens(fields);
    if (const auto decoder = fields.find("added_tokens_decoder")) read_decoder(*decoder, result.added_tokens);
    result.legacy = fields.boolean("legacy", true);
    result.tokenizer_class = fields.optional_text("tokenizer_class").value_or("");
  });
  read("special_tokens_map.json", read_tokens);
  if (result.added_tokens.empty())
    read("added_tokens.json", [&](const Fields& fields) { read_added_tokens_file(fields, result.added_tokens); });
  return result;
}

}  // namespace moeweld::tokenizer
