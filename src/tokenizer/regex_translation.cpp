#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <iterator>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"

namespace moeweld::tokenizer {
namespace {

constexpr int kMaxDepth = 100;
constexpr std::size_t kMaxRegexBytes = 100'000;

// What Oniguruma's classes hold, as the inside of a PCRE2 class. PCRE2's own \s has U+180E too, its \w no marks.
// Additions of newer Unicode versions are written out by property_class.
constexpr std::string_view kSpace = R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kHexDigit = "0-9A-Fa-f";

struct LongName {
  std::string_view name, category;
};
constexpr LongName kCategoryNames[] = {
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"unassigned", "Cn"},
    {"privateuse", "Co"},
    {"surrogate", "Cs"},
    {"letter", "L"},
    {"lowercaseletter", "Ll"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"titlecaseletter", "Lt"},
    {"uppercaseletter", "Lu"},
    {"mark", "M"},
    {"combiningmark", "M"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"nonspacingmark", "Mn"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"closepunctuation", "Pe"},
    {"finalpunctuation", "Pf"},
    {"initialpunctuation", "Pi"},
    {"otherpunctuation", "Po"},
    {"openpunctuation", "Ps"},
    {"symbol", "S"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"mathsymbol", "Sm"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"spaceseparator", "Zs"},
};
constexpr std::string_view kCategories[] = {"C",  "Cc", "Cf", "Cn", "Co", "Cs", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",
                                            "Mc", "Me", "Mn", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi",
                                            "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"};
// Scripts and other properties go to PCRE2 by name; sc: because a bare script name means its extensions as well.
constexpr std::string_view kBinaryProperties[] = {
    "alphabetic",    "lowercase",         "uppercase",           "whitespace", "ideographic", "emoji", "math",      "hexdigit",
    "asciihexdigit", "idstart",           "idcontinue",          "xidstart",   "xidcontinue", "dash",  "diacritic", "any",
    "assigned",      "emojipresentation", "extendedpictographic"};

std::string hex_escape(char32_t code) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "\\x{%x}", static_cast<unsigned>(code));
  return text.data();
}

std::string simplified(std::string_view name) {
  std::string result;
  for (const char c : name) {
    if (c != ' ' && c != '_' && c != '-') result.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  }
  return result;
}

/// \p{name} as the inside of a PCRE2 class, with what newer versions of Unicode add to it.
std::string property_class(std::string_view name) {
  const bool is_category = std::find(std::begin(kCategories), std::end(kCategories), name) != std::end(kCategories);
  const bool is_binary = std::find(std::begin(kBinaryProperties), std::end(kBinaryProperties), name) != std::end(kBinaryProperties);
  std::string result = (is_category || is_binary ? "\\p{" : "\\p{sc:") + std::string(name) + "}";
  for (const Addition& addition : unicode_additions()) {
    const bool within = addition.name == name || (name.size() == 1 && addition.name.size() == 2 && addition.name[0] == name[0]);
    if (within) result += hex_escape(addition.first) + "-" + hex_escape(addition.last);
  }
  return result;
}

std::string property_classes(std::initializer_list<std::string_view> names) {
  std::string result;
  for (const std::string_view name : names) result += property_class(name);
  return result;
}

/// \w: not the same as [[:word:]], which has no other numbers.
const std::string& word_class() {
  static const std::string result = property_classes({"alphabetic", "M", "N", "Pc"});
  return result;
}

/// The inside of a PCRE2 class for one of [[:name:]] or \p{name}; empty if it is none of those.
std::string posix_class(std::string_view name, bool in_brackets) {
  if (name == "alpha") return property_class("alphabetic");
  if (name == "alnum") return property_classes({"alphabetic", "Nd"});
  if (name == "digit") return property_class("Nd");
  if (name == "space") return std::string(kSpace);
  if (name == "word") return property_classes({"alphabetic", "M", "Nd", "Pc"});
  if (name == "upper") return property_class("uppercase");
  if (name == "lower") return property_class("lowercase");
  if (name == "xdigit") return std::string(kHexDigit);
  if (name == "cntrl") return property_class("Cc");
  if (name == "blank") return property_class("Zs") + R"(\x{9})";
  if (name == "punct") return in_brackets ? property_classes({"P", "S"}) : property_class("P");
  if (name == "ascii") return R"(\x{0}-\x{7f})";
  return {};
}

class Translator {
 public:
  explicit Translator(std::string_view source) : source_(source) {}

  std::string translate() {
    if (source_.size() > kMaxRegexBytes) malformed("it has more than " + std::to_string(kMaxRegexBytes) + " bytes");
    alternatives(0);
    if (!at_end()) malformed("')' closes nothing");
    return std::move(out_);
  }

 private:
  bool at_end() const { return position_ >= source_.size(); }
  char peek(std::size_t ahead = 0) const { return position_ + ahead < source_.size() ? source_[position_ + ahead] : '\0'; }
  bool looking_at(std::string_view text) const { return !at_end() && source_.substr(position_, text.size()) == text; }
  bool take(std::string_view text) {
    if (!looking_at(text)) return false;
    position_ += text.size();
    return true;
  }
  [[noreturn]] void malformed(const std::string& why) const {
    throw Error(ErrorCode::kInvalidInput,
                "the regular expression '" + printable(source_, 120) + "' is malformed at byte " + std::to_string(position_) + ": " + why);
  }
  [[noreturn]] void unsupported(const std::string& what) const {
    throw Error(ErrorCode::kUnsupported, "the regular expression '" + printable(source_, 120) + "' has " + what + " at byte " +
                                             std::to_string(position_) + ", which is not supported");
  }

  /// Until the end of the enclosing group. An option such as (?i) holds to that end, over alternatives too: Ruby's rule.
  void alternatives(int depth) {
    if (depth > kMaxDepth) malformed("its groups are nested deeper than " + std::to_string(kMaxDepth) + " levels");
    std::size_t open_options = 0;
    while (!at_end() && peek() != ')') {
      if (take("|")) {
        out_ += '|';
        continue;
      }
      const std::size_t atom = out_.size();
      const bool is_atom = parse_atom(depth, open_options);
      if (is_atom) quantifiers(atom);
    }
    out_.append(open_options, ')');
  }

  /// Returns whether a quantifier may follow.
  bool parse_atom(int depth, std::size_t& open_options) {
    switch (peek()) {
      case '(':
        return group(depth, open_options);
      case '[':
        out_ += character_class(depth);
        return true;
      case '\\':
        return escape();
      case '^':
      case '$':
      case '.':
        out_ += source_[position_++];
        return true;
      case '*':
      case '+':
      case '?':
        malformed("nothing is there to be repeated");
      default:
        break;
    }
    literal(next_code_point(source_, position_));
    return true;
  }

  void literal(char32_t code) {
    if (code < 0x80 && std::isalnum(static_cast<int>(code)) == 0) {
      out_ += hex_escape(code);
    } else {
      append_utf8(out_, code);
    }
  }

  bool group(int depth, std::size_t& open_options) {
    ++position_;
    if (peek() == '*') unsupported("'(*'");
    if (peek() == '?') {
      if (take("?#")) {
        while (!at_end() && peek() != ')') ++position_;
        close_group();
        return false;
      }
      static constexpr std::string_view kPlain[] = {"?:", "?=", "?!", "?>", "?<=", "?<!"};
      const auto* found = std::find_if(std::begin(kPlain), std::end(kPlain), [&](std::string_view text) { return looking_at(text); });
      if (found != std::end(kPlain)) {
        position_ += found->size();
        out_ += "(" + std::string(*found);
      } else if (peek(1) == '<') {
        while (!at_end() && peek() != '>') ++position_;
        ++position_;
        out_ += "(";
      } else {
        return options(depth, open_options);
      }
    } else {
      out_ += "(";
    }
    alternatives(depth + 1);
    close_group();
    out_ += ")";
    return true;
  }

  void close_group() {
    if (!take(")")) malformed("a ')' is missing");
  }

  /// (?im-x) and (?im-x:…), behind the '('.
  bool options(int depth, std::size_t& open_options) {
    ++position_;
    std::string on, off;
    bool negative = false;
    for (; !at_end() && peek() != ')' && peek() != ':'; ++position_) {
      const char c = peek();
      std::string& set = negative ? off : on;
      if (c == '-' && !negative) {
        negative = true;
      } else if (c == 'i') {
        set += 'i';
      } else if (c == 'm') {
        set += 's';
      } else if (c == 'x' && negative) {
        // off anyway
      } else {
        unsupported(std::string("the group '(?") + c + "'");
      }
    }
    out_ += "(?" + on + (off.empty() ? "" : "-" + off) + ":";
    if (take(")")) {
      ++open_options;
      if (open_options > 100) malformed("it has more than 100 options");
      return false;
    }
    if (!take(":")) malformed("a ')' is missing");
    alternatives(depth + 1);
    close_group();
    out_ += ")";
    return true;
  }

  void quantifiers(std::size_t atom) {
    bool repeated = false;
    while (!at_end()) {
      std::string quantifier;
      bool interval = false, fixed = false;
      const std::size_t before = position_;
      if (peek() == '*' || peek() == '+' || peek() == '?') {
        quantifier = source_[position_++];
      } else if (peek() == '{' && read_interval(quantifier, fixed)) {
        interval = true;
      } else {
        position_ = before;
        return;
      }
      if (repeated) wrap(atom);
      out_ += quantifier;
      repeated = true;
      // {n,m}+ is a repetition of a repetition, {n}? an optional one.
      if (peek() == '?' && !(interval && fixed)) {
        out_ += '?';
        ++position_;
      } else if (peek() == '+' && !interval) {
        out_ += '+';
        ++position_;
      }
    }
  }

  void wrap(std::size_t atom) {
    out_.insert(atom, "(?:");
    out_ += ")";
  }

  bool read_interval(std::string& quantifier, bool& fixed) {
    ++position_;
    const auto digits = [&] {
      std::string result;
      while (std::isdigit(static_cast<unsigned char>(peek())) != 0 && result.size() < 6) result += source_[position_++];
      return result;
    };
    std::string low = digits(), high;
    fixed = !take(",");
    if (!fixed) high = digits();
    if (!take("}") || (low.empty() && high.empty())) return false;
    if (low.empty()) low = "0";
    quantifier = fixed ? "{" + low + "}" : "{" + low + "," + high + "}";
    return true;
  }

  bool escape() {
    ++position_;
    const char c = peek();
    static constexpr std::string_view kSame = "AzZG";
    if (kSame.find(c) != std::string_view::npos && c != '\0') {
      out_ += '\\';
      out_ += c;
      ++position_;
      return false;
    }
    if (c == 'b' || c == 'B') {
      ++position_;
      const std::string word = "[" + word_class() + "]";
      out_ += c == 'b' ? "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))"
                       : "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))";
      return true;
    }
    if (c == 'R') {
      ++position_;
      out_ += "\\R";
      return true;
    }
    if (c >= '1' && c <= '9') {
      out_ += "\\g{";
      while (std::isdigit(static_cast<unsigned char>(peek())) != 0) out_ += source_[position_++];
      out_ += "}";
      return true;
    }
    bool negative = false;
    if (const std::string inside = class_escape(negative); !inside.empty()) {
      out_ += (negative ? "[^" : "[") + inside + "]";
    } else {
      literal(character_escape(false));
    }
    return true;
  }

  /// \w, \S, \p{…}: the inside of a class; empty, and nothing taken, if it is none. Behind the backslash.
  std::string class_escape(bool& negative) {
    const char c = peek();
    negative = c == 'W' || c == 'D' || c == 'S' || c == 'H' || c == 'P';
    switch (c) {
      case 'w':
      case 'W':
        ++position_;
        return word_class();
      case 'd':
      case 'D':
        ++position_;
        return property_class("Nd");
      case 's':
      case 'S':
        ++position_;
        return std::string(kSpace);
      case 'h':
      case 'H':
        ++position_;
        return std::string(kHexDigit);
      case 'p':
      case 'P':
        return property(negative);
      default:
        return {};
    }
  }

  std::string property(bool& negative) {
    ++position_;
    if (!take("{")) unsupported("\\p without braces");
    if (take("^")) negative = !negative;
    const std::size_t end = source_.find('}', position_);
    if (end == std::string_view::npos) malformed("a '}' is missing");
    const std::string shown(source_.substr(position_, end - position_));
    const std::string name = simplified(shown);
    if (name.empty() || !std::all_of(name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }))
      malformed("'" + printable(shown, 40) + "' is no property");
    position_ = end + 1;
    for (const std::string_view category : kCategories) {
      if (name == simplified(category)) return property_class(category);
    }
    for (const LongName& entry : kCategoryNames) {
      if (name == entry.name) return property_class(entry.category);
    }
    if (const std::string posix = posix_class(name, false); !posix.empty()) return posix;
    if (name == "any") return R"(\x{0}-\x{10ffff})";
    return property_class(name);
  }

  /// One character, behind the backslash.
  char32_t character_escape(bool in_class) {
    if (at_end()) malformed("it ends in a backslash");
    const char c = peek();
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) return next_code_point(source_, position_);
    ++position_;
    switch (c) {
      case 't':
        return 0x9;
      case 'n':
        return 0xA;
      case 'v':
        return 0xB;
      case 'f':
        return 0xC;
      case 'r':
        return 0xD;
      case 'a':
        return 0x7;
      case 'e':
        return 0x1B;
      case 'b':
        if (in_class) return 0x8;
        break;
      case '0':
        if (std::isdigit(static_cast<unsigned char>(peek())) == 0) return 0;
        break;
      case 'x':
        return take("{") ? hex_digits(1, 8, true) : hex_digits(2, 2, false);
      case 'u':
        return hex_digits(4, 4, false);
      default:
        break;
    }
    --position_;
    unsupported(std::string("'\\") + c + "'");
  }

  char32_t hex_digits(std::size_t least, std::size_t most, bool braced) {
    char32_t code = 0;
    std::size_t count = 0;
    for (; count < most && std::isxdigit(static_cast<unsigned char>(peek())) != 0; ++count) {
      const auto digit = static_cast<char32_t>(std::tolower(static_cast<unsigned char>(source_[position_++])));
      code = code * 16 + (digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    if (count < least || (braced && !take("}"))) malformed("a hexadecimal number is expected");
    // \xNN is a byte, not a character.
    if (!braced && most == 2 && code > 0x7F) unsupported("a byte beyond 7F");
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) malformed("there is no such character");
    return code;
  }

  /// A class with its nested classes and && operators; behind it, position_ is behind its ']'.
  std::string character_class(int depth) {
    if (depth > kMaxDepth) malformed("its classes are nested deeper than " + std::to_string(kMaxDepth) + " levels");
    ++position_;
    const bool negative = take("^");
    std::vector<std::string> parts;  // of which all must match
    std::string items;               // inside of a plain class
    std::vector<std::string> nested;
    const auto finish_part = [&] {
      std::string part = items.empty() ? "" : "[" + items + "]";
      for (const std::string& one : nested) part += (part.empty() ? "" : "|") + one;
      if (part.empty()) malformed("a character class is empty");
      parts.push_back("(?:" + part + ")");
    };
    bool first = true;
    bool plain = true;
    while (true) {
      if (at_end()) malformed("a ']' is missing");
      if (peek() == ']' && !first) break;
      if (take("&&")) {
        finish_part();
        items.clear();
        nested.clear();
        plain = false;
        continue;
      }
      first = false;
      if (peek() == '[') {
        if (peek(1) == ':') {
          items += posix_bracket();
        } else {
          nested.push_back(character_class(depth + 1));
          plain = false;
        }
        continue;
      }
      plain &= class_item(items, nested);
    }
    ++position_;
    if (plain) return (negative ? "[^" : "[") + items + "]";
    finish_part();
    std::string all;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) all += "(?=" + parts[i] + ")";
    all += parts.back();
    return negative ? "(?:(?!" + all + ")(?s:.))" : "(?:" + all + ")";
  }

  std::string posix_bracket() {
    const std::size_t end = source_.find(":]", position_);
    if (end == std::string_view::npos) unsupported("'[:'");
    position_ += 2;
    const bool negative = take("^");
    const std::string name(source_.substr(position_, end - position_));
    std::string inside = posix_class(name, true);
    if (inside.empty()) unsupported("[[:" + printable(name, 20) + ":]]");
    if (negative) unsupported("[[:^" + name + ":]]");
    position_ = end + 2;
    return inside;
  }

  /// Returns whether a plain class can hold it.
  bool class_item(std::string& items, std::vector<std::string>& nested) {
    if (peek() == '\\') {
      bool negative = false;
      ++position_;
      if (const std::string inside = class_escape(negative); !inside.empty()) {
        if (negative) {
          nested.push_back("[^" + inside + "]");
        } else {
          items += inside;
        }
        return !negative;
      }
      --position_;
    }
    const char32_t low = class_character();
    items += hex_escape(low);
    // A '-' before the end or before a class is itself.
    if (peek() != '-' || peek(1) == ']' || peek(1) == '[' || (peek(1) == '&' && peek(2) == '&')) return true;
    if (peek(1) == '\\' && std::string_view("wWdDsShHpP").find(peek(2)) != std::string_view::npos) return true;
    ++position_;
    const char32_t high = class_character();
    if (high < low) malformed("a range runs backwards");
    items += "-" + hex_escape(high);
    return true;
  }

  char32_t class_character() {
    if (at_end()) malformed("a ']' is missing");
    if (peek() != '\\') return next_code_point(source_, position_);
    ++position_;
    return character_escape(true);
  }

  std::string_view source_;
  std::size_t position_ = 0;
  std::string out_;
};

}  // namespace

std::string translate_regex(std::string_view oniguruma) { return Translator(oniguruma).translate(); }

}  // namespace moeweld::tokenizer
