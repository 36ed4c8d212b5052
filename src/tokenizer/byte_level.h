#pragma once
/// GPT-2's 256 printable characters that stand for bytes.

#include <string>
#include <string_view>

namespace moeweld::tokenizer {

/// Every byte of `text` as its character, in UTF-8.
std::string to_byte_level(std::string_view text);

}  // namespace moeweld::tokenizer
