#include "tokenizer/json_tokenizer.h"

#include <algorithm>

#include "moeweld/base/text.h"
#include "tokenizer/unicode.h"

namespace moeweld::tokenizer {
namespace {

constexpr formats::JsonLimits kLimits{.max_bytes = std::uint64_t{256} << 20, .max_depth = 32};

std::unique_ptr<const Bpe> make_model(const Fields& fields) {
  // Files of old versions do not say the type.
  const std::string type = fields.optional_text("type").value_or(fields.find("merges") ? "BPE" : "unnamed");
  if (type != "BPE") fields.refuse_component("model", type, "BPE; convert the tokenizer, or give token ids instead of prompts");
  return std::make_unique<Bpe>(fields);
}

}  // namespace

void check_text(std::string_view text) {
  if (text.size() > kMaxTextBytes)
    throw Error(ErrorCode::kInvalidInput,
                "the text has " + std::to_string(text.size()) + " bytes; at most " + std::to_string(kMaxTextBytes) + " are accepted");
  if (is_utf8(text)) return;
  // Bisection would need is_utf8 of prefixes that end inside a character: look at character by character instead.
  std::size_t position = 0;
  while (position < text.size()) {
    const std::size_t length = character_length(text[position]);
    if (position + length > text.size() || !is_utf8(text.substr(position, length))) break;
    position += length;
  }
  throw Error(ErrorCode::kInvalidInput, "the text is not valid UTF-8 at byte " + std::to_string(position));
}

JsonTokenizer::JsonTokenizer(std::string_view json, const std::string& path) {
  const Json document = formats::parse_json(json, path, kLimits);
  const Fields root(document, "", path);
  model_ = make_model(root.at("model"));
  if (const auto normalizer = root.find("normalizer")) normalizer_ = make_normalizer(*normalizer);
  if (const auto pre_tokenizer = root.find("pre_tokenizer")) pre_tokenizer_ = make_pre_tokenizer(*pre_tokenizer);
  vocabulary_size_ = model_->vocabulary().size();
  id_limit_ = model_->vocabulary().id_limit();
  if (const auto added = root.find("added_tokens")) read_added_tokens(*added);
}

void JsonTokenizer::read_added_tokens(const Fields& list) {
  std::vector<AddedToken> tokens;
  for (std::size_t i = 0; i < list.num_elements(); ++i) tokens.push_back(parse_added_token(list.element(i)));
  const Vocabulary& vocabulary = model_->vocabulary();
  added_tokens_.add(
      std::move(tokens), [&](std::string_view token) { return vocabulary.id(token); }, vocabulary.size());
  list.placed([&] {
    added_tokens_.prepare([&](const std::string& content) {
      NormalizedText text{content, 0};
      if (normalizer_) normalizer_->apply(text);
      return text.text;
    });
  });
  for (const auto& [token, id] : added_tokens_.ids()) {
    if (!vocabulary.id(token)) ++vocabulary_size_;
    if (id > kLargestTokenId) list.refuse("needs ids beyond " + std::to_string(kLargestTokenId));
    id_limit_ = std::max(id_limit_, id + 1);
  }
}

std::vector<std::int64_t> JsonTokenizer::encode(std::string_view text) const {
  check_text(text);
  std::vector<std::int64_t> ids;
  for (const TextOrToken& raw : added_tokens_.cut(text, false)) {
    if (raw.id) {
      ids.push_back(*raw.id);
      continue;
    }
    const bool at_start = raw.text.data() == text.data();
    NormalizedText stretch{std::string(raw.text), at_start ? character_length(raw.text[0]) : 0};
    if (normalizer_) normalizer_->apply(stretch);
    for (const TextOrToken& part : added_tokens_.cut(stretch.text, true)) {
      if (part.id) {
        ids.push_back(*part.id);
        continue;
      }
      const auto begin = static_cast<std::size_t>(part.text.data() - stretch.text.data());
      const std::size_t start_bytes = stretch.start_bytes > begin ? std::min(stretch.start_bytes - begin, part.text.size()) : 0;
      encode_stretch({std::string(part.text), start_bytes}, ids);
    }
  }
  return ids;
}

void JsonTokenizer::encode_stretch(NormalizedText stretch, std::vector<std::int64_t>& ids) const {
  std::vector<NormalizedText> pieces;
  pieces.push_back(std::move(stretch));
  if (pre_tokenizer_) pre_tokenizer_->apply(pieces);
  for (const NormalizedText& piece : pieces) model_->encode(piece.text, ids);
}

std::optional<std::int64_t> JsonTokenizer::token_to_id(std::string_view token) const {
  const auto added = added_tokens_.id(token);
  return added ? added : model_->vocabulary().id(token);
}

std::optional<std::string> JsonTokenizer::id_to_token(std::int64_t id) const {
  if (const AddedToken* added = added_tokens_.token(id)) return added->content;
  const auto token = model_->vocabulary().token(id);
  return token ? std::optional(std::string(*token)) : std::nullopt;
}

std::shared_ptr<const Tokenizer> parse_tokenizer_json(std::string_view json, const std::string& path) {
  return std::make_shared<JsonTokenizer>(json, path);
}

}  // namespace moeweld::tokenizer
