#pragma once
/// Splitting by a pattern, the common part of most pre-tokenizers and of Replace.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/regex.h"

namespace moeweld::tokenizer {

struct Match {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool is_match = false;
};

/// A regular expression or a plain string.
class Pattern {
 public:
  explicit Pattern(Regex regex) : pattern_(std::move(regex)) {}
  explicit Pattern(std::string text) : pattern_(std::move(text)) {}

  /// All of `text` in order, cut at the matches. Empty matches are taken, but not directly behind another match.
  std::vector<Match> cut(std::string_view text) const;

 private:
  std::optional<std::pair<std::size_t, std::size_t>> find(std::string_view text, std::size_t start) const;
  std::variant<Regex, std::string> pattern_;
};

/// All of `text`, every character that satisfies `is_delimiter` a match of its own.
std::vector<Match> cut_at_characters(std::string_view text, const std::function<bool(char32_t)>& is_delimiter);

/// What happens to the matches.
enum class Behavior : std::uint8_t { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// The pieces that are left, as ranges; none is removed any more.
std::vector<Match> apply_behavior(std::vector<Match> matches, Behavior behavior);

}  // namespace moeweld::tokenizer
