#pragma once
/// Tokens and their ids, both ways.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "tokenizer/fields.h"

namespace moeweld::tokenizer {

/// Ids fit 31 bits: what every reader of checkpoints can hold.
constexpr std::int64_t kLargestTokenId = (std::int64_t{1} << 31) - 1;

class Vocabulary {
 public:
  /// {"token": id, …}. Refuses ids out of range and ids given twice.
  static Vocabulary parse(const Fields& fields);

  std::optional<std::int64_t> id(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  std::optional<std::string_view> token(std::int64_t id) const {
    const auto found = tokens_.find(id);
    return found == tokens_.end() ? std::nullopt : std::optional<std::string_view>(found->second);
  }
  std::size_t size() const { return ids_.size(); }
  std::int64_t id_limit() const { return id_limit_; }

  /// False if the token or the id is there already.
  bool add(std::string token, std::int64_t id);

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  // Nodes of the map stay where they are: tokens_ looks into them.
  std::unordered_map<std::string, std::int64_t, Hash, std::equal_to<>> ids_;
  std::unordered_map<std::int64_t, std::string_view> tokens_;
  std::int64_t id_limit_ = 0;
};

}  // namespace moeweld::tokenizer
