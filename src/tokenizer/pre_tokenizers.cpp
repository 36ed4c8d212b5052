#include "tokenizer/pre_tokenizers.h"

#include <algorithm>
#include <functional>

#include "moeweld/base/text.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/parse_pattern.h"
#include "tokenizer/pattern.h"
#include "tokenizer/unicode.h"

namespace moeweld::tokenizer {
namespace {

NormalizedText part_of(const NormalizedText& piece, const Match& range) {
  const std::size_t start_bytes = piece.start_bytes > range.begin ? std::min(piece.start_bytes, range.end) - range.begin : 0;
  return {piece.text.substr(range.begin, range.end - range.begin), start_bytes};
}

void prepend(NormalizedText& piece, std::string_view prefix) {
  piece.text.insert(0, prefix);
  if (piece.start_bytes > 0) piece.start_bytes += prefix.size();
}

/// Replaces every piece by its parts that `ranges` gives; empty ones are left out.
template <typename Ranges>
void cut_pieces(std::vector<NormalizedText>& pieces, Ranges&& ranges) {
  std::vector<NormalizedText> result;
  result.reserve(pieces.size());
  for (NormalizedText& piece : pieces) {
    const std::vector<Match> parts = ranges(piece);
    if (parts.size() == 1 && parts[0].begin == 0 && parts[0].end == piece.text.size()) {
      if (!piece.text.empty()) result.push_back(std::move(piece));
      continue;
    }
    for (const Match& part : parts) {
      if (part.begin != part.end) result.push_back(part_of(piece, part));
    }
  }
  pieces = std::move(result);
}

class Split : public PreTokenizer {
 public:
  Split(Pattern pattern, Behavior behavior, bool invert) : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void apply(std::vector<NormalizedText>& pieces) const override {
    cut_pieces(pieces, [this](const NormalizedText& piece) {
      std::vector<Match> matches = pattern_.cut(piece.text);
      if (invert_) {
        for (Match& match : matches) match.is_match = !match.is_match;
      }
      return apply_behavior(std::move(matches), behavior_);
    });
  }

 private:
  Pattern pattern_;
  Behavior behavior_;
  bool invert_;
};

/// Cuts at single characters.
class SplitCharacters : public PreTokenizer {
 public:
  SplitCharacters(std::function<bool(char32_t)> is_delimiter, Behavior behavior)
      : is_delimiter_(std::move(is_delimiter)), behavior_(behavior) {}
  void apply(std::vector<NormalizedText>& pieces) const override {
    cut_pieces(pieces,
               [this](const NormalizedText& piece) { return apply_behavior(cut_at_characters(piece.text, is_delimiter_), behavior_); });
  }

 private:
  std::function<bool(char32_t)> is_delimiter_;
  Behavior behavior_;
};

/// Words, and runs of what is neither word nor white space; white space goes.
class Whitespace : public PreTokenizer {
 public:
  void apply(std::vector<NormalizedText>& pieces) const override {
    enum Kind { kSpace, kWord, kOther };
    cut_pieces(pieces, [](const NormalizedText& piece) {
      std::vector<Match> parts;
      Kind last = kSpace;
      for (std::size_t position = 0; position < piece.text.size();) {
        const std::size_t begin = position;
        const char32_t code = next_code_point(piece.text, position);
        const Kind kind = is_word(code) ? kWord : is_whitespace(code) ? kSpace : kOther;
        if (kind != kSpace && kind == last) parts.back().end = position;
        if (kind != kSpace && kind != last) parts.push_back({begin, position, false});
        last = kind;
      }
      return parts;
    });
  }
};

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex) : add_prefix_space_(add_prefix_space) {
    if (use_regex) pattern_.emplace(Regex(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"));
  }
  void apply(std::vector<NormalizedText>& pieces) const override {
    if (add_prefix_space_) {
      for (NormalizedText& piece : pieces) {
        if (!piece.text.starts_with(' ')) prepend(piece, " ");
      }
    }
    if (pattern_) cut_pieces(pieces, [this](const NormalizedText& piece) { return pattern_->cut(piece.text); });
    for (NormalizedText& piece : pieces) {
      if (piece.start_bytes > 0) piece.start_bytes = to_byte_level(std::string_view(piece.text).substr(0, piece.start_bytes)).size();
      piece.text = to_byte_level(piece.text);
    }
  }

 private:
  bool add_prefix_space_;
  std::optional<Pattern> pattern_;
};

class Metaspace : public PreTokenizer {
 public:
  enum class Scheme : std::uint8_t { kAlways, kFirst, kNever };
  Metaspace(std::string replacement, Scheme scheme, bool split)
      : replacement_(std::move(replacement)), pattern_(replacement_), scheme_(scheme), split_(split) {}

  void apply(std::vector<NormalizedText>& pieces) const override {
    for (NormalizedText& piece : pieces) {
      replace_spaces(piece);
      const bool wanted = scheme_ == Scheme::kAlways || (scheme_ == Scheme::kFirst && piece.start_bytes > 0);
      if (wanted && !piece.text.starts_with(replacement_)) prepend(piece, replacement_);
    }
    if (split_)
      cut_pieces(pieces,
                 [this](const NormalizedText& piece) { return apply_behavior(pattern_.cut(piece.text), Behavior::kMergedWithNext); });
  }

 private:
  void replace_spaces(NormalizedText& piece) const {
    if (piece.text.find(' ') == std::string::npos) return;
    std::string result;
    result.reserve(piece.text.size() + 16);
    std::size_t start_bytes = piece.start_bytes;
    for (std::size_t i = 0; i < piece.text.size(); ++i) {
      if (piece.text[i] == ' ') {
        result += replacement_;
        if (i < piece.start_bytes) start_bytes += replacement_.size() - 1;
      } else {
        result += piece.text[i];
      }
    }
    piece.text = std::move(result);
    piece.start_bytes = start_bytes;
  }

  std::string replacement_;
  Pattern pattern_;
  Scheme scheme_;
  bool split_;
};

std::unique_ptr<const PreTokenizer> make_metaspace(const Fields& fields) {
  const std::string replacement = fields.text("replacement");
  if (!single_code_point(replacement)) fields.at("replacement").refuse("is not one character");
  // Files of older versions have add_prefix_space only.
  const std::string given = fields.optional_text("prepend_scheme").value_or("");
  const bool add_prefix_space = fields.boolean("add_prefix_space", true);
  if (!add_prefix_space && !given.empty() && given != "never")
    fields.refuse("says add_prefix_space false and prepend_scheme '" + printable(given, 40) + "', which contradict each other");
  Metaspace::Scheme scheme = add_prefix_space ? Metaspace::Scheme::kAlways : Metaspace::Scheme::kNever;
  if (given == "first") {
    scheme = Metaspace::Scheme::kFirst;
  } else if (given == "never") {
    scheme = Metaspace::Scheme::kNever;
  } else if (!given.empty() && given != "always") {
    fields.at("prepend_scheme").refuse("is '" + printable(given, 40) + "'; there are always, first and never");
  }
  return std::make_unique<Metaspace>(replacement, scheme, fields.boolean("split", true));
}

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<const PreTokenizer>> steps) : steps_(std::move(steps)) {}
  void apply(std::vector<NormalizedText>& pieces) const override {
    for (const auto& step : steps_) step->apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<const PreTokenizer>> steps_;
};

std::unique_ptr<const PreTokenizer> make_sequence(const Fields& list) {
  std::vector<std::unique_ptr<const PreTokenizer>> steps;
  for (std::size_t i = 0; i < list.num_elements(); ++i) steps.push_back(make_pre_tokenizer(list.element(i)));
  return std::make_unique<Sequence>(std::move(steps));
}

/// BERT's: white space goes, punctuation stands alone.
std::unique_ptr<const PreTokenizer> make_bert() {
  std::vector<std::unique_ptr<const PreTokenizer>> steps;
  steps.push_back(std::make_unique<SplitCharacters>(is_whitespace, Behavior::kRemoved));
  steps.push_back(std::make_unique<SplitCharacters>(is_punctuation, Behavior::kIsolated));
  return std::make_unique<Sequence>(std::move(steps));
}

}  // namespace

std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const Fields& fields) {
  const std::string type = fields.text("type");
  if (type == "Split")
    return std::make_unique<Split>(parse_pattern(fields.at("pattern")), parse_behavior(fields.at("behavior")), fields.boolean("invert"));
  if (type == "ByteLevel") return std::make_unique<ByteLevel>(fields.boolean("add_prefix_space"), fields.boolean("use_regex", true));
  if (type == "Metaspace") return make_metaspace(fields);
  if (type == "Digits")
    return std::make_unique<SplitCharacters>(is_numeric, fields.boolean("individual_digits") ? Behavior::kIsolated : Behavior::kContiguous);
  if (type == "Punctuation") {
    const auto behavior = fields.find("behavior");
    return std::make_unique<SplitCharacters>(is_punctuation, behavior ? parse_behavior(*behavior) : Behavior::kIsolated);
  }
  if (type == "Whitespace") return std::make_unique<Whitespace>();
  if (type == "WhitespaceSplit") return std::make_unique<SplitCharacters>(is_whitespace, Behavior::kRemoved);
  if (type == "CharDelimiterSplit") {
    const auto delimiter = single_code_point(fields.text("delimiter"));
    if (!delimiter) fields.at("delimiter").refuse("is not one character");
    return std::make_unique<SplitCharacters>([code = *delimiter](char32_t c) { return c == code; }, Behavior::kRemoved);
  }
  if (type == "BertPreTokenizer") return make_bert();
  if (type == "Sequence") return make_sequence(fields.at("pretokenizers"));
  fields.refuse_component(
      "pre-tokenizer", type,
      "Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, CharDelimiterSplit, BertPreTokenizer and "
      "Sequence");
}

}  // namespace moeweld::tokenizer
