#pragma once
/// Code points of valid UTF-8 and the few properties that normalizers and pre-tokenizers ask for, as the `tokenizers` library sees them.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace moeweld::tokenizer {

/// The code point at `position`, and the position behind it. `text` is valid UTF-8 and `position` the start of a character.
inline char32_t next_code_point(std::string_view text, std::size_t& position) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[position + i]); };
  const std::uint8_t first = byte(0);
  char32_t code = first;
  std::size_t length = 1;
  if (first >= 0xF0) {
    code = ((first & 0x07U) << 18) | ((byte(1) & 0x3FU) << 12) | ((byte(2) & 0x3FU) << 6) | (byte(3) & 0x3FU);
    length = 4;
  } else if (first >= 0xE0) {
    code = ((first & 0x0FU) << 12) | ((byte(1) & 0x3FU) << 6) | (byte(2) & 0x3FU);
    length = 3;
  } else if (first >= 0xC0) {
    code = ((first & 0x1FU) << 6) | (byte(1) & 0x3FU);
    length = 2;
  }
  position += length;
  return code;
}

/// The start of the character that ends at `position` > 0.
inline std::size_t previous_position(std::string_view text, std::size_t position) {
  do --position;
  while (position > 0 && (static_cast<std::uint8_t>(text[position]) & 0xC0U) == 0x80U);
  return position;
}

/// Length of the character that begins with this byte.
inline std::size_t character_length(char first) {
  const auto byte = static_cast<std::uint8_t>(first);
  return byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
}

void append_utf8(std::string& text, char32_t code);

/// The text's only code point; nothing if it has none or several.
std::optional<char32_t> single_code_point(std::string_view text);

/// White_Space.
bool is_whitespace(char32_t code);
/// General categories Nd, Nl, No.
bool is_numeric(char32_t code);
/// ASCII punctuation and symbols, and what Unicode 8 calls punctuation: the library's table has that age.
bool is_punctuation(char32_t code);
/// General categories Mn, Mc, Me of Unicode 9.
bool is_mark(char32_t code);
/// What the Rust regex crate calls \w: Alphabetic, marks, decimal digits, connectors, join controls.
bool is_word(char32_t code);
/// Full lower case of one character, without context.
void append_lower_case(std::string& text, char32_t code);

enum class NormalForm : std::uint8_t { kNfc, kNfd, kNfkc, kNfkd };

/// By the rules of Unicode 9: what is newer and would change is left as it is.
std::string normalize(std::string_view text, NormalForm form);

/// Code points that Unicode 16 has and 14 does not, with their category ("Lu"), property or script (in small letters). Oniguruma has them,
/// Debian 12's PCRE2 has not.
struct Addition {
  char32_t first, last;
  std::string_view name;
};
std::span<const Addition> unicode_additions();

}  // namespace moeweld::tokenizer
