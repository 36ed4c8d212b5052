#include "tokenizer/sentence_piece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "tokenizer/json_tokenizer.h"
#include "tokenizer/unicode.h"

namespace moeweld::tokenizer {
namespace {

constexpr std::string_view kMetaspace = "\xe2\x96\x81";
// A second normalizer_spec is merged with the first one: add_dummy_prefix = false (field 3 of field 3 of ModelProto).
constexpr std::string_view kNoDummyPrefix("\x1a\x02\x18\x00", 4);

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string_view model, const std::string& path, const SpecialTokens& special) : legacy_(special.legacy) {
    std::string bytes(model);
    if (!legacy_) bytes += kNoDummyPrefix;
    const auto status = processor_.LoadFromSerializedProto(bytes);
    if (!status.ok()) {
      throw Error(
          ErrorCode::kInvalidInput,
          "this is no SentencePiece model (" + printable(status.ToString(), 200) +
              "). A tokenizer.model that lists tokens in base64 is of another kind; use the version of the model that has tokenizer.json",
          path);
    }
    add_tokens(special, path);
    bos_id_ = named_id(special.bos, processor_.bos_id(), special.bos_path);
    eos_id_ = named_id(special.eos, processor_.eos_id(), special.eos_path);
    if (!legacy_) {
      unknown_ = special.unknown.value_or(std::nullopt).value_or(processor_.IdToPiece(processor_.unk_id()));
      num_unknown_pieces_ = pieces_of(unknown_).size();
    }
  }

  std::vector<std::int64_t> encode(std::string_view text) const override {
    check_text(text);
    std::vector<std::int64_t> ids;
    if (text.empty()) return ids;
    std::string prepared;
    if (!legacy_) {
      prepared = std::string(kMetaspace) + with_spaces(text);
      text = prepared;
    }
    const std::vector<TextOrToken> parts = added_tokens_.cut(text, false);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      // The prefix alone, directly before a special token, is not a token.
      const bool lone_prefix = !legacy_ && i == 0 && parts.size() > 1 && parts[0].text == kMetaspace && is_special(parts[1]);
      if (lone_prefix) continue;
      if (parts[i].id) {
        ids.push_back(*parts[i].id);
      } else {
        encode_part(parts[i].text, ids);
      }
    }
    return ids;
  }

  std::size_t vocabulary_size() const override { return vocabulary_size_; }
  std::int64_t id_limit() const override { return id_limit_; }
  std::optional<std::int64_t> token_to_id(std::string_view token) const override {
    if (const auto added = added_tokens_.id(token)) return added;
    return piece_id(token);
  }
  std::optional<std::string> id_to_token(std::int64_t id) const override {
    if (const AddedToken* added = added_tokens_.token(id)) return added->content;
    if (id < 0 || id >= processor_.GetPieceSize()) return std::nullopt;
    return processor_.IdToPiece(static_cast<int>(id));
  }

 private:
  bool is_special(const TextOrToken& part) const {
    const AddedToken* token = part.id ? added_tokens_.token(*part.id) : nullptr;
    return token != nullptr && token->special;
  }

  static std::string with_spaces(std::string_view text) {
    std::string result;
    result.reserve(text.size());
    for (std::size_t i = 0; i < text.size();) {
      if (text.substr(i, kMetaspace.size()) == kMetaspace) {
        result += ' ';
        i += kMetaspace.size();
      } else {
        result += text[i++];
      }
    }
    return result;
  }

  std::vector<int> pieces_of(std::string_view text) const {
    std::vector<int> ids;
    const auto status = processor_.Encode(text, &ids);
    if (!status.ok()) throw Error(ErrorCode::kInvalidInput, "SentencePiece refuses the text: " + printable(status.ToString(), 200));
    return ids;
  }

  /// transformers keeps the space before a piece by writing the unknown token in front and taking its ids away again.
  void encode_part(std::string_view text, std::vector<std::int64_t>& ids) const {
    const bool guarded = !legacy_ && (text.starts_with(kMetaspace) || text.starts_with(' '));
    std::vector<int> pieces = guarded ? pieces_of(unknown_ + std::string(text)) : pieces_of(text);
    const std::size_t skipped = guarded && pieces.size() >= num_unknown_pieces_ ? num_unknown_pieces_ : 0;
    ids.insert(ids.end(), pieces.begin() + static_cast<std::ptrdiff_t>(skipped), pieces.end());
  }

  std::optional<std::int64_t> piece_id(std::string_view token) const {
    const int id = processor_.PieceToId(token);
    if (id < 0 || id >= processor_.GetPieceSize() || processor_.IdToPiece(id) != token) return std::nullopt;
    return id;
  }

  bool is_unknown_begin_or_end(std::int64_t id) const {
    return id == processor_.unk_id() || id == processor_.bos_id() || id == processor_.eos_id();
  }

  void add_tokens(const SpecialTokens& special, const std::string& path) {
    vocabulary_size_ = static_cast<std::size_t>(processor_.GetPieceSize());
    id_limit_ = processor_.GetPieceSize();
    for (const auto& [id, token] : special.added_tokens) {
      if (token.content.empty()) continue;
      if (const auto known = piece_id(token.content); known && *known != id) {
        throw Error(ErrorCode::kInvalidInput,
                    "the token '" + printable(token.content, 60) + "' has id " + std::to_string(*known) + " here and id " +
                        std::to_string(id) + " in the added tokens beside it",
                    path);
      }
      AddedToken raw = token;
      raw.normalized = false;  // there is no normalizer before the search
      // transformers goes by what is named as special, not by the flag.
      raw.special = special.named.contains(token.content) || is_unknown_begin_or_end(id);
      added_tokens_.add_with_id(std::move(raw), id);
      if (!piece_id(token.content)) ++vocabulary_size_;
      id_limit_ = std::max(id_limit_, id + 1);
    }
    for (const int id : {processor_.unk_id(), processor_.bos_id(), processor_.eos_id()}) {
      if (id < 0 || added_tokens_.token(id) != nullptr) continue;
      AddedToken token{.content = processor_.IdToPiece(id), .normalized = false, .special = true};
      if (!token.content.empty()) added_tokens_.add_with_id(std::move(token), id);
    }
    added_tokens_.prepare([](const std::string& content) { return content; });
  }

  std::optional<std::int64_t> named_id(const std::optional<std::optional<std::string>>& named, int own, const std::string& path) const {
    if (!named) return own < 0 ? std::nullopt : std::optional<std::int64_t>(own);
    if (!*named) return std::nullopt;
    const auto id = token_to_id(**named);
    if (!id)
      throw Error(ErrorCode::kInvalidInput, "the token '" + printable(**named, 60) + "' is not in the vocabulary of tokenizer.model", path);
    return id;
  }

  sentencepiece::SentencePieceProcessor processor_;
  AddedTokens added_tokens_;
  bool legacy_;
  std::string unknown_;
  std::size_t num_unknown_pieces_ = 0;
  std::size_t vocabulary_size_ = 0;
  std::int64_t id_limit_ = 0;
};

}  // namespace

std::shared_ptr<const Tokenizer> make_sentence_piece_tokenizer(std::string_view model, const std::string& path,
                                                               const SpecialTokens& special) {
  return std::make_shared<SentencePieceTokenizer>(model, path, special);
}

}  // namespace moeweld::tokenizer
