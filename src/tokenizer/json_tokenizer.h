#pragma once
/// A tokenizer.json put together.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "moeweld/tokenizer/tokenizer.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/normalizers.h"
#include "tokenizer/pre_tokenizers.h"

namespace moeweld::tokenizer {

class JsonTokenizer : public Tokenizer {
 public:
  JsonTokenizer(std::string_view json, const std::string& path);

  std::vector<std::int64_t> encode(std::string_view text) const override;
  std::size_t vocabulary_size() const override { return vocabulary_size_; }
  std::int64_t id_limit() const override { return id_limit_; }
  std::optional<std::int64_t> token_to_id(std::string_view token) const override;
  std::optional<std::string> id_to_token(std::int64_t id) const override;

  void set_bos(std::optional<std::int64_t> id) { bos_id_ = id; }
  void set_eos(std::optional<std::int64_t> id) { eos_id_ = id; }

 private:
  void read_added_tokens(const Fields& list);
  void encode_stretch(NormalizedText stretch, std::vector<std::int64_t>& ids) const;

  std::unique_ptr<const Normalizer> normalizer_;
  std::unique_ptr<const PreTokenizer> pre_tokenizer_;
  std::unique_ptr<const Bpe> model_;
  AddedTokens added_tokens_;
  std::size_t vocabulary_size_ = 0;
  std::int64_t id_limit_ = 0;
};

/// Refuses what is no UTF-8 or too long.
void check_text(std::string_view text);

}  // namespace moeweld::tokenizer
