#pragma once
/// tokenizer.model, as transformers' LlamaTokenizer reads it.

#include <memory>
#include <string>
#include <string_view>

#include "moeweld/tokenizer/tokenizer.h"
#include "tokenizer/special_tokens.h"

namespace moeweld::tokenizer {

/// `model` is the content of the file `path`. Throws Error naming it.
std::shared_ptr<const Tokenizer> make_sentence_piece_tokenizer(std::string_view model, const std::string& path,
                                                               const SpecialTokens& special);

}  // namespace moeweld::tokenizer
