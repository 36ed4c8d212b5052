#include "tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <memory>

#include "moeweld/base/error.h"

namespace moeweld::tokenizer {
namespace {

struct Range {
  char32_t first, last;
};

// Punctuation of Unicode 15 that the library's table (of Unicode 8) does not have.
constexpr Range kNewerPunctuation[] = {
#include "tokenizer/newer_punctuation.inc"
};
// Marks and characters with decompositions that the library's table (of Unicode 9) does not have: it leaves them as they are.
constexpr Range kNewerNormalization[] = {
#include "tokenizer/newer_normalization.inc"
};

constexpr Addition kAdditions[] = {
#include "tokenizer/newer_properties.inc"
};

template <std::size_t Size>
bool is_in(const Range (&ranges)[Size], char32_t code) {
  const Range* found =
      std::lower_bound(std::begin(ranges), std::end(ranges), code, [](const Range& range, char32_t value) { return range.last < value; });
  return found != std::end(ranges) && found->first <= code;
}

/// Whether Unicode 16 gives the code point one of these general categories ("Lu Ll") and Unicode 14 none.
bool is_added(char32_t code, std::string_view categories) {
  if (code < 0x897) return false;
  return std::any_of(std::begin(kAdditions), std::end(kAdditions), [&](const Addition& addition) {
    return addition.first <= code && code <= addition.last && addition.name.size() == 2 &&
           categories.find(addition.name) != std::string_view::npos;
  });
}

utf8proc_category_t category(char32_t code) { return utf8proc_category(static_cast<utf8proc_int32_t>(code)); }

struct FreedText {
  void operator()(utf8proc_uint8_t* text) const { std::free(text); }
};

}  // namespace

void append_utf8(std::string& text, char32_t code) {
  const auto add = [&](char32_t byte) { text.push_back(static_cast<char>(static_cast<std::uint8_t>(byte))); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xC0U | (code >> 6));
    add(0x80U | (code & 0x3FU));
  } else if (code < 0x10000) {
    add(0xE0U | (code >> 12));
    add(0x80U | ((code >> 6) & 0x3FU));
    add(0x80U | (code & 0x3FU));
  } else {
    add(0xF0U | (code >> 18));
    add(0x80U | ((code >> 12) & 0x3FU));
    add(0x80U | ((code >> 6) & 0x3FU));
    add(0x80U | (code & 0x3FU));
  }
}

std::optional<char32_t> single_code_point(std::string_view text) {
  if (text.empty()) return std::nullopt;
  std::size_t position = 0;
  const char32_t code = next_code_point(text, position);
  return position == text.size() ? std::optional(code) : std::nullopt;
}

bool is_whitespace(char32_t code) {
  return (code >= 0x9 && code <= 0xD) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_numeric(char32_t code) {
  const auto kind = category(code);
  return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_NO ||
         (kind == UTF8PROC_CATEGORY_CN && is_added(code, "Nd Nl No"));
}

bool is_punctuation(char32_t code) {
  if (code < 0x80) return code > 0x20 && code != 0x7F && !(code >= '0' && code <= '9') && !((code | 0x20U) >= 'a' && (code | 0x20U) <= 'z');
  // Punctuation in Unicode 8, no longer since.
  if (code == 0x166D || code == 0x111C9) return true;
  const auto kind = category(code);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO && !is_in(kNewerPunctuation, code);
}

bool is_mark(char32_t code) {
  const auto kind = category(code);
  // U+1CF2 and U+1CF3 were marks until Unicode 12.
  return ((kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_ME) && !is_in(kNewerNormalization, code)) || code == 0x1CF2 ||
         code == 0x1CF3;
}

bool is_word(char32_t code) {
  if (code == 0x200C || code == 0x200D) return true;
  // Other_Alphabetic beyond letters, numbers and marks: circled and squared Latin letters.
  if ((code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) || (code >= 0x1F150 && code <= 0x1F169) ||
      (code >= 0x1F170 && code <= 0x1F189))
    return true;
  const auto kind = category(code);
  return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_NL) || kind == UTF8PROC_CATEGORY_PC ||
         (kind == UTF8PROC_CATEGORY_CN && is_added(code, "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl Pc"));
}

namespace {

/// Capital letters newer than utf8proc's table, and how far away the small ones are.
struct NewerCapitals {
  char32_t first, last;
  std::int32_t distance;
};
constexpr NewerCapitals kNewerCapitals[] = {
    {0x1C89, 0x1C89, 1},      {0xA7CB, 0xA7CB, 0x264 - 0xA7CB},
    {0xA7CC, 0xA7CC, 1},      {0xA7CE, 0xA7CE, 1},
    {0xA7D2, 0xA7D2, 1},      {0xA7D4, 0xA7D4, 1},
    {0xA7DA, 0xA7DA, 1},      {0xA7DC, 0xA7DC, 0x19B - 0xA7DC},
    {0x10D50, 0x10D65, 0x20}, {0x16EA0, 0x16EB8, 0x1B},
};

}  // namespace

void append_lower_case(std::string& text, char32_t code) {
  if (code == 0x130) {  // the one character whose lower case is two
    text += "i\u0307";
    return;
  }
  if (code >= 0x1C89) {
    for (const NewerCapitals& row : kNewerCapitals) {
      if (row.first > code || code > row.last) continue;
      append_utf8(text, static_cast<char32_t>(static_cast<std::int32_t>(code) + row.distance));
      return;
    }
  }
  append_utf8(text, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
}

std::span<const Addition> unicode_additions() { return kAdditions; }

namespace {

void append_normalized(std::string& result, std::string_view text, NormalForm form) {
  if (text.empty()) return;
  int options = UTF8PROC_STABLE;
  options |= form == NormalForm::kNfc || form == NormalForm::kNfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size_bytes =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                   static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, FreedText> owner(mapped);
  if (size_bytes < 0) throw Error(ErrorCode::kInvalidInput, std::string("the text cannot be normalized: ") + utf8proc_errmsg(size_bytes));
  result.append(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(size_bytes));
}

}  // namespace

std::string normalize(std::string_view text, NormalForm form) {
  std::string result;
  result.reserve(text.size());
  std::size_t begin = 0;
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t start = position;
    const char32_t code = next_code_point(text, position);
    if (code < 0x7FD || !is_in(kNewerNormalization, code)) continue;
    append_normalized(result, text.substr(begin, start - begin), form);
    append_utf8(result, code);
    begin = position;
  }
  append_normalized(result, text.substr(begin), form);
  return result;
}

}  // namespace moeweld::tokenizer
