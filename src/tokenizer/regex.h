#pragma once
/// Regular expressions of tokenizer files: written for Oniguruma (Ruby syntax), run by PCRE2.

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace moeweld::tokenizer {

/// The same expression in PCRE2's syntax. Oniguruma's \s, \w, \d, \h, [[:…:]], ^ and $, {n,m}+ and class operators mean other things than
/// PCRE2's and are written out. Throws Error(kUnsupported) naming the construct that has no translation, Error(kInvalidInput) if it is
/// malformed; without path.
std::string translate_regex(std::string_view oniguruma);

/// A compiled expression. Any thread may use it.
class Regex {
 public:
  /// Throws like translate_regex.
  explicit Regex(std::string_view oniguruma);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  /// First match at or behind `start` in valid UTF-8: begin and end. Throws Error(kInvalidInput) when it takes too many steps.
  std::optional<std::pair<std::size_t, std::size_t>> find(std::string_view text, std::size_t start) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace moeweld::tokenizer
