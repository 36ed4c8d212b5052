#pragma once
/// Byte pair encoding: the "model" of a tokenizer.json.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/fields.h"
#include "tokenizer/vocabulary.h"

namespace moeweld::tokenizer {

class Bpe {
 public:
  explicit Bpe(const Fields& fields);

  const Vocabulary& vocabulary() const { return vocabulary_; }

  /// Appends the ids of one piece. Merges the pair of lowest rank first, the leftmost of several; O(n log n).
  void encode(std::string_view piece, std::vector<std::int64_t>& ids) const;

 private:
  struct Merge {
    std::uint32_t rank;
    std::int32_t id;
  };
  struct Symbol {
    std::int32_t id;
    std::int32_t previous;
    std::int32_t next;
    bool removed;
  };
  static std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
  }
  struct PairHash {
    std::size_t operator()(std::uint64_t pair) const {
      return static_cast<std::size_t>((pair ^ (pair >> 29)) * 0x9E3779B97F4A7C15ULL >> 17);
    }
  };

  void read_merges(const Fields& merges, std::size_t prefix_bytes);
  std::vector<Symbol> symbols_of(std::string_view piece) const;
  void merge(std::vector<Symbol>& symbols) const;
  const Merge* find_merge(std::int32_t left, std::int32_t right) const;

  Vocabulary vocabulary_;
  std::unordered_map<std::uint64_t, Merge, PairHash> merges_;
  std::optional<std::string> unknown_token_;
  std::string continuing_prefix_;
  std::string word_suffix_;
  std::array<std::int32_t, 256> byte_ids_{};  ///< of "<0xNN>", -1 if there is none or byte_fallback is off
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
};

}  // namespace moeweld::tokenizer
