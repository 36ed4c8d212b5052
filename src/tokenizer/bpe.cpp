#include "tokenizer/bpe.h"

#include <algorithm>
#include <cstdio>

#include "moeweld/base/text.h"
#include "tokenizer/unicode.h"

namespace moeweld::tokenizer {
namespace {

constexpr std::int32_t kNone = -1;

std::string byte_token(unsigned byte) {
  std::array<char, 8> text{};
  std::snprintf(text.data(), text.size(), "<0x%02X>", byte);
  return text.data();
}

/// An entry of "merges": "a b" or ["a", "b"].
std::pair<std::string, std::string> parse_merge(const Fields& entry) {
  if (entry.json().is_array()) {
    if (entry.num_elements() != 2) entry.refuse("has " + std::to_string(entry.num_elements()) + " parts; a merge has two");
    return {entry.element(0).as_text(), entry.element(1).as_text()};
  }
  const std::string text = entry.as_text();
  const std::size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
    entry.refuse("is '" + printable(text, 60) + "'; a merge is two tokens with one space between them");
  return {text.substr(0, space), text.substr(space + 1)};
}

}  // namespace

Bpe::Bpe(const Fields& fields)
    : vocabulary_(Vocabulary::parse(fields.at("vocab"))),
      unknown_token_(fields.optional_text("unk_token")),
      continuing_prefix_(fields.optional_text("continuing_subword_prefix").value_or("")),
      word_suffix_(fields.optional_text("end_of_word_suffix").value_or("")),
      byte_fallback_(fields.boolean("byte_fallback", false)),
      fuse_unknown_(fields.boolean("fuse_unk", false)),
      ignore_merges_(fields.boolean("ignore_merges", false)) {
  if (const auto dropout = fields.find("dropout")) {
    if (!dropout->json().is_number()) dropout->refuse("is no number");
    if (dropout->json().get<double>() != 0.0)
      throw Error(ErrorCode::kUnsupported, "'" + dropout->where() + "' is not 0: such a tokenizer gives other ids each time",
                  fields.path());
  }
  for (unsigned byte = 0; byte < 256; ++byte)
    byte_ids_[byte] = byte_fallback_ ? static_cast<std::int32_t>(vocabulary_.id(byte_token(byte)).value_or(kNone)) : kNone;
  read_merges(fields.at("merges"), continuing_prefix_.size());
}

void Bpe::read_merges(const Fields& merges, std::size_t prefix_bytes) {
  const std::size_t count = merges.num_elements();
  merges_.reserve(count);
  std::uint32_t rank = 0;
  std::string merged;
  for (std::size_t i = 0; i < count; ++i) {
    const Fields entry = merges.element(i);
    if (entry.json().is_string() && entry.json().get_ref<const std::string&>().starts_with("#version")) continue;
    const auto [left, right] = parse_merge(entry);
    if (right.size() < prefix_bytes) entry.refuse("has a second part shorter than continuing_subword_prefix");
    merged = left + right.substr(prefix_bytes);
    std::array<std::int32_t, 3> ids{};
    const std::array<const std::string*, 3> tokens{&left, &right, &merged};
    for (std::size_t k = 0; k < 3; ++k) {
      const auto id = vocabulary_.id(*tokens[k]);
      if (!id) entry.refuse("needs the token '" + printable(*tokens[k], 60) + "', which the vocabulary does not have");
      ids[k] = static_cast<std::int32_t>(*id);
    }
    // Of two equal pairs the later one counts, as in the library.
    merges_.insert_or_assign(pair_of(ids[0], ids[1]), Merge{rank, ids[2]});
    ++rank;
  }
}

const Bpe::Merge* Bpe::find_merge(std::int32_t left, std::int32_t right) const {
  const auto found = merges_.find(pair_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<Bpe::Symbol> Bpe::symbols_of(std::string_view piece) const {
  std::vector<Symbol> result;
  result.reserve(piece.size());
  const auto add = [&](std::int32_t id) {
    const auto index = static_cast<std::int32_t>(result.size());
    if (index > 0) result.back().next = index;
    result.push_back({id, index - 1, kNone, false});
  };
  // The library keeps an unknown character back until the next known one, and adds bytes without letting it go first.
  std::int32_t pending_unknown = kNone;
  std::string decorated;
  for (std::size_t position = 0; position < piece.size();) {
    const std::size_t length = character_length(piece[position]);
    std::string_view token = piece.substr(position, length);
    const bool is_first = position == 0;
    position += length;
    const bool is_last = position == piece.size();
    if ((!is_first && !continuing_prefix_.empty()) || (is_last && !word_suffix_.empty())) {
      decorated = (is_first ? "" : continuing_prefix_) + std::string(token) + (is_last ? word_suffix_ : "");
      token = decorated;
    }
    if (const auto id = vocabulary_.id(token)) {
      if (pending_unknown != kNone) add(pending_unknown);
      pending_unknown = kNone;
      add(static_cast<std::int32_t>(*id));
      continue;
    }
    if (byte_fallback_ &&
        std::all_of(token.begin(), token.end(), [&](char c) { return byte_ids_[static_cast<std::uint8_t>(c)] != kNone; })) {
      for (const char c : token) add(byte_ids_[static_cast<std::uint8_t>(c)]);
      continue;
    }
    if (!unknown_token_) continue;
    if (pending_unknown != kNone && !fuse_unknown_) add(pending_unknown);
    const auto id = vocabulary_.id(*unknown_token_);
    if (!id)
      throw Error(ErrorCode::kInvalidInput,
                  "the text needs the unknown token '" + printable(*unknown_token_, 60) + "', which the vocabulary does not have");
    pending_unknown = static_cast<std::int32_t>(*id);
  }
  if (pending_unknown != kNone) add(pending_unknown);
  return result;
}

void Bpe::merge(std::vector<Symbol>& symbols) const {
  struct Candidate {
    std::uint32_t rank;
    std::int32_t position;
    std::int32_t id;
    bool operator<(const Candidate& other) const {  // the heap's top is the largest
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  std::vector<Candidate> heap;
  heap.reserve(symbols.size());
  const auto candidate = [&](std::int32_t left, std::int32_t right) -> std::optional<Candidate> {
    const Merge* found = find_merge(symbols[static_cast<std::size_t>(left)].id, symbols[static_cast<std::size_t>(right)].id);
    return found == nullptr ? std::nullopt : std::optional(Candidate{found->rank, left, found->id});
  };
  for (std::int32_t i = 0; i + 1 < static_cast<std::int32_t>(symbols.size()); ++i) {
    if (const auto found = candidate(i, i + 1)) heap.push_back(*found);
  }
  std::make_heap(heap.begin(), heap.end());
  const auto push = [&](const std::optional<Candidate>& found) {
    if (!found) return;
    heap.push_back(*found);
    std::push_heap(heap.begin(), heap.end());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate top = heap.back();
    heap.pop_back();
    Symbol& left = symbols[static_cast<std::size_t>(top.position)];
    if (left.removed || left.next == kNone) continue;
    Symbol& right = symbols[static_cast<std::size_t>(left.next)];
    // The pair may have changed since; the library asks only whether it still becomes the same token.
    const Merge* now = find_merge(left.id, right.id);
    if (now == nullptr || now->id != top.id) continue;
    left.id = top.id;
    left.next = right.next;
    right.removed = true;
    if (left.next != kNone) symbols[static_cast<std::size_t>(left.next)].previous = top.position;
    if (left.previous != kNone) push(candidate(left.previous, top.position));
    if (left.next != kNone) push(candidate(top.position, left.next));
  }
}

void Bpe::encode(std::string_view piece, std::vector<std::int64_t>& ids) const {
  if (ignore_merges_) {
    if (const auto id = vocabulary_.id(piece)) {
      ids.push_back(*id);
      return;
    }
  }
  std::vector<Symbol> symbols = symbols_of(piece);
  merge(symbols);
  for (const Symbol& symbol : symbols) {
    if (!symbol.removed) ids.push_back(symbol.id);
  }
}

}  // namespace moeweld::tokenizer
