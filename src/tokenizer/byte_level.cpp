#include "tokenizer/byte_level.h"

#include <array>
#include <cstdint>

#include "tokenizer/unicode.h"

namespace moeweld::tokenizer {
namespace {

/// Bytes that Latin-1 prints stand for themselves; the others, in order, for U+0100 and up.
std::array<std::string, 256> make_characters() {
  std::array<std::string, 256> result;
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printed = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    append_utf8(result[byte], printed ? byte : next++);
  }
  return result;
}

}  // namespace

std::string to_byte_level(std::string_view text) {
  static const std::array<std::string, 256> characters = make_characters();
  std::string result;
  result.reserve(text.size() + text.size() / 4);
  for (const char c : text) result += characters[static_cast<std::uint8_t>(c)];
  return result;
}

}  // namespace moeweld::tokenizer
