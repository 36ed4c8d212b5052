#pragma once
/// Text to token ids, as the `tokenizers` library computes them. docs/tokenizer.md lists the components and where ids may differ.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "moeweld/storage/storage.h"

namespace moeweld::tokenizer {

/// A model's tokenizer. Immutable: any thread may use it at any time.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids of `text` (UTF-8) without anything that a post-processor would add. Added tokens that are written in the text become their ids, as
  /// in transformers. Throws Error(kInvalidInput) without path: not UTF-8 (with the byte's position), more than kMaxTextBytes, a character
  /// that needs an unknown token the vocabulary does not have, a regular expression of the tokenizer that needs too many steps on this
  /// text.
  virtual std::vector<std::int64_t> encode(std::string_view text) const = 0;

  /// mergekit-moe's rule for prompts: the beginning-of-sequence token if the tokenizer has one, then encode(text); nothing at the end.
  std::vector<std::int64_t> encode_with_bos(std::string_view text) const;

  /// The token that tokenizer_config.json (else special_tokens_map.json, else tokenizer.model) names; nothing if it names none.
  std::optional<std::int64_t> bos_id() const { return bos_id_; }
  std::optional<std::int64_t> eos_id() const { return eos_id_; }

  /// Number of tokens, added ones included. Ids may have gaps: see id_limit.
  virtual std::size_t vocabulary_size() const = 0;
  /// One more than the largest id.
  virtual std::int64_t id_limit() const = 0;
  /// As the vocabulary writes it (byte-level and with U+2581 where the model does); nothing if there is no such token.
  virtual std::optional<std::int64_t> token_to_id(std::string_view token) const = 0;
  virtual std::optional<std::string> id_to_token(std::int64_t id) const = 0;

 protected:
  std::optional<std::int64_t> bos_id_;
  std::optional<std::int64_t> eos_id_;
};

/// Longest text that encode takes.
constexpr std::size_t kMaxTextBytes = std::size_t{256} << 20;

/// The tokenizer of a model directory: tokenizer.json, else tokenizer.model (SentencePiece) with the added tokens of tokenizer_config.json,
/// else of added_tokens.json. Throws Error with the path of the file: kInvalidInput if there is neither file, or one is damaged or
/// contradicts itself; kUnsupported if it has a component that is not there yet, with its name.
std::shared_ptr<const Tokenizer> load_tokenizer(Storage& storage, const std::string& model_directory);

/// The content of a tokenizer.json, without the begin and end tokens that other files name. `path` is for messages. Throws as above.
std::shared_ptr<const Tokenizer> parse_tokenizer_json(std::string_view json, const std::string& path);

}  // namespace moeweld::tokenizer
