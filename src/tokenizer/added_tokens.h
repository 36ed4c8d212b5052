#pragma once
/// Tokens that are looked for in the text itself, before the model sees it.

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/fields.h"
#include "tokenizer/normalizers.h"

namespace moeweld::tokenizer {

struct AddedToken {
  std::string content;
  bool single_word = false;  ///< only where no word character touches it
  bool lstrip = false;       ///< takes the white space on its left
  bool rstrip = false;
  bool normalized = true;  ///< looked for in normalized text, in its own normalized form
  bool special = false;

  bool operator==(const AddedToken&) const = default;
};

AddedToken parse_added_token(const Fields& fields);

/// Finds the leftmost of several strings, of those the longest.
class StringSet {
 public:
  /// Refuses nothing: empty strings are never found. `value` is what find gives back; the first of equal strings wins.
  void add(std::string_view text, std::size_t value);
  struct Found {
    std::size_t begin, end, value;
  };
  std::optional<Found> find(std::string_view text, std::size_t start) const;
  bool empty() const { return nodes_.size() == 1; }

 private:
  struct Node {
    std::map<char, std::uint32_t> next;
    std::optional<std::size_t> value;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
};

/// A piece of text, or an added token in its place.
struct TextOrToken {
  std::string_view text;
  std::optional<std::int64_t> id;
};

class AddedTokens {
 public:
  /// Gives each token its id: that of `model_id`, else one more than the largest so far, counted from `model_size`: the library's rule.
  /// What the file says as id plays no part in it.
  void add(std::vector<AddedToken> tokens, const std::function<std::optional<std::int64_t>(std::string_view)>& model_id,
           std::size_t model_size);
  /// The id is known: for tokenizer.model, whose added tokens have theirs in tokenizer_config.json.
  void add_with_id(AddedToken token, std::int64_t id);
  /// After the last add. `normalize` turns a token's content into what is looked for; throws Error(kUnsupported) if nothing is left of one.
  void prepare(const std::function<std::string(const std::string&)>& normalize);

  /// Cuts at tokens that are looked for in raw (normalized = false) or normalized text. No piece of text is empty.
  std::vector<TextOrToken> cut(std::string_view text, bool normalized) const;

  std::optional<std::int64_t> id(std::string_view token) const;
  const AddedToken* token(std::int64_t id) const;
  const std::map<std::int64_t, AddedToken>& by_id() const { return by_id_; }
  /// Contents with their ids; not every id of it is in by_id.
  const std::map<std::string, std::int64_t, std::less<>>& ids() const { return ids_; }

 private:
  std::map<std::string, std::int64_t, std::less<>> ids_;
  std::map<std::int64_t, AddedToken> by_id_;
  std::vector<AddedToken> in_order_;  ///< special ones first within one add
  std::optional<std::int64_t> largest_id_;
  StringSet raw_;
  StringSet normalized_;
};

}  // namespace moeweld::tokenizer
