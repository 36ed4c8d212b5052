#include "tokenizer/pattern.h"

#include <algorithm>

#include "tokenizer/unicode.h"

namespace moeweld::tokenizer {

std::optional<std::pair<std::size_t, std::size_t>> Pattern::find(std::string_view text, std::size_t start) const {
  if (const Regex* regex = std::get_if<Regex>(&pattern_)) return regex->find(text, start);
  const std::string& wanted = std::get<std::string>(pattern_);
  const std::size_t found = text.find(wanted, start);
  if (found == std::string_view::npos) return std::nullopt;
  return std::pair(found, found + wanted.size());
}

std::vector<Match> Pattern::cut(std::string_view text) const {
  std::vector<Match> result;
  std::size_t covered = 0;
  std::size_t search = 0;
  std::optional<std::size_t> last_end;
  while (search <= text.size()) {
    const auto found = find(text, search);
    if (!found) break;
    const auto [begin, end] = *found;
    if (begin == end && last_end == end) {
      search += search < text.size() ? character_length(text[search]) : 1;
      continue;
    }
    search = end;
    last_end = end;
    if (covered != begin) result.push_back({covered, begin, false});
    result.push_back({begin, end, true});
    covered = end;
  }
  if (covered != text.size()) result.push_back({covered, text.size(), false});
  return result;
}

std::vector<Match> cut_at_characters(std::string_view text, const std::function<bool(char32_t)>& is_delimiter) {
  std::vector<Match> result;
  std::size_t covered = 0;
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t begin = position;
    if (!is_delimiter(next_code_point(text, position))) continue;
    if (covered != begin) result.push_back({covered, begin, false});
    result.push_back({begin, position, true});
    covered = position;
  }
  if (covered != text.size()) result.push_back({covered, text.size(), false});
  return result;
}

namespace {

/// Joins neighbours where `joins(is_match, previous_is_match)`, seen in the direction of the iteration.
template <typename Iterator, typename Joins>
std::vector<Match> join(Iterator begin, Iterator end, Joins joins) {
  std::vector<Match> result;
  bool previous = false;
  for (; begin != end; ++begin) {
    if (!result.empty() && joins(begin->is_match, previous)) {
      result.back().begin = std::min(result.back().begin, begin->begin);
      result.back().end = std::max(result.back().end, begin->end);
    } else {
      result.push_back(*begin);
    }
    previous = begin->is_match;
  }
  return result;
}

}  // namespace

std::vector<Match> apply_behavior(std::vector<Match> matches, Behavior behavior) {
  const auto lone_match = [](bool is_match, bool previous) { return is_match && !previous; };
  switch (behavior) {
    case Behavior::kIsolated:
      return matches;
    case Behavior::kRemoved:
      std::erase_if(matches, [](const Match& match) { return match.is_match; });
      return matches;
    case Behavior::kContiguous:
      return join(matches.begin(), matches.end(), [](bool is_match, bool previous) { return is_match == previous; });
    case Behavior::kMergedWithPrevious:
      return join(matches.begin(), matches.end(), lone_match);
    case Behavior::kMergedWithNext: {
      std::vector<Match> result = join(matches.rbegin(), matches.rend(), lone_match);
      std::reverse(result.begin(), result.end());
      return result;
    }
  }
  return matches;
}

}  // namespace moeweld::tokenizer
