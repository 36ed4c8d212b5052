#include "tokenizer/normalizers.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "tokenizer/byte_level.h"
#include "tokenizer/parse_pattern.h"
#include "tokenizer/pattern.h"
#include "tokenizer/unicode.h"

namespace moeweld::tokenizer {
namespace {

/// A text that is rebuilt stretch by stretch; keeps count of what stems from the input's first character.
class Rebuilt {
 public:
  explicit Rebuilt(NormalizedText& target) : target_(target) { text_.reserve(target.text.size()); }
  ~Rebuilt() = default;
  Rebuilt(const Rebuilt&) = delete;
  Rebuilt& operator=(const Rebuilt&) = delete;

  /// What `write` appends stands for the old text from `begin`. Removed characters take their claim on the start with them.
  template <typename Write>
  void append(std::size_t begin, Write&& write) {
    write(text_);
    if (begin < target_.start_bytes) start_bytes_ = text_.size();
  }
  void finish() {
    target_.text = std::move(text_);
    target_.start_bytes = std::min(start_bytes_, target_.text.size());
  }

 private:
  NormalizedText& target_;
  std::string text_;
  std::size_t start_bytes_ = 0;
};

/// Character by character; `append` adds what takes its place.
class PerCharacter : public Normalizer {
 public:
  using Append = void (*)(std::string& text, char32_t code);
  explicit PerCharacter(Append append) : append_(append) {}
  void apply(NormalizedText& text) const override {
    Rebuilt rebuilt(text);
    for (std::size_t position = 0; position < text.text.size();) {
      const std::size_t begin = position;
      const char32_t code = next_code_point(text.text, position);
      rebuilt.append(begin, [&](std::string& out) { append_(out, code); });
    }
    rebuilt.finish();
  }

 private:
  Append append_;
};

void append_without_accents(std::string& text, char32_t code) {
  if (!is_mark(code)) append_utf8(text, code);
}

/// Control characters go, other white space becomes spaces: the rule of Google's NMT.
void append_nmt(std::string& text, char32_t code) {
  const bool dropped =
      (code >= 0x1 && code <= 0x8) || code == 0xB || (code >= 0xE && code <= 0x1F) || code == 0x7F || code == 0x8F || code == 0x9F;
  if (dropped) return;
  const bool space = code == 0x9 || code == 0xA || code == 0xC || code == 0xD || code == 0x1680 || (code >= 0x200B && code <= 0x200F) ||
                     code == 0x2028 || code == 0x2029 || code == 0x2581 || code == 0xFEFF || code == 0xFFFD;
  append_utf8(text, space ? ' ' : code);
}

class UnicodeForm : public Normalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}
  void apply(NormalizedText& text) const override {
    if (text.start_bytes > 0) {
      const std::string start = normalize(std::string_view(text.text).substr(0, text.start_bytes), form_);
      text.text = normalize(text.text, form_);
      text.start_bytes = std::min(start.size(), text.text.size());
    } else {
      text.text = normalize(text.text, form_);
    }
  }

 private:
  NormalForm form_;
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(NormalizedText& text) const override {
    const std::string_view all = text.text;
    std::size_t begin = 0, end = all.size();
    while (left_ && begin < end) {
      std::size_t next = begin;
      if (!is_whitespace(next_code_point(all, next))) break;
      begin = next;
    }
    while (right_ && begin < end) {
      const std::size_t last = previous_position(all, end);
      std::size_t position = last;
      if (!is_whitespace(next_code_point(all, position))) break;
      end = last;
    }
    text.start_bytes -= std::min(begin, text.start_bytes);
    text.text = text.text.substr(begin, end - begin);
    text.start_bytes = std::min(text.start_bytes, text.text.size());
  }

 private:
  bool left_, right_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(NormalizedText& text) const override {
    if (text.text.empty()) return;
    text.text.insert(0, prefix_);
    if (text.start_bytes > 0) text.start_bytes += prefix_.size();
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(NormalizedText& text) const override {
    const std::vector<Match> matches = pattern_.cut(text.text);
    Rebuilt rebuilt(text);
    for (const Match& match : matches) {
      if (match.is_match) {
        rebuilt.append(match.begin, [&](std::string& out) { out += content_; });
        continue;
      }
      const std::size_t start = std::clamp(text.start_bytes, match.begin, match.end);
      rebuilt.append(match.begin, [&](std::string& out) { out.append(text.text, match.begin, start - match.begin); });
      rebuilt.append(start, [&](std::string& out) { out.append(text.text, start, match.end - start); });
    }
    rebuilt.finish();
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class ByteLevelNormalizer : public Normalizer {
 public:
  void apply(NormalizedText& text) const override {
    if (text.start_bytes > 0) text.start_bytes = to_byte_level(std::string_view(text.text).substr(0, text.start_bytes)).size();
    text.text = to_byte_level(text.text);
  }
};

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(const Fields& list) {
    for (std::size_t i = 0; i < list.num_elements(); ++i) steps_.push_back(make_normalizer(list.element(i)));
  }
  void apply(NormalizedText& text) const override {
    for (const auto& step : steps_) step->apply(text);
  }

 private:
  std::vector<std::unique_ptr<const Normalizer>> steps_;
};

}  // namespace

std::unique_ptr<const Normalizer> make_normalizer(const Fields& fields) {
  const std::string type = fields.text("type");
  if (type == "NFC") return std::make_unique<UnicodeForm>(NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<UnicodeForm>(NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(NormalForm::kNfkd);
  if (type == "Lowercase") return std::make_unique<PerCharacter>(append_lower_case);
  if (type == "StripAccents") return std::make_unique<PerCharacter>(append_without_accents);
  if (type == "Nmt") return std::make_unique<PerCharacter>(append_nmt);
  if (type == "Strip") {
    const bool left = fields.boolean("strip_left");
    return std::make_unique<Strip>(left, fields.boolean("strip_right"));
  }
  if (type == "Prepend") return std::make_unique<Prepend>(fields.text("prepend"));
  if (type == "Replace") return std::make_unique<Replace>(parse_pattern(fields.at("pattern")), fields.text("content"));
  if (type == "ByteLevel") return std::make_unique<ByteLevelNormalizer>();
  if (type == "Sequence") return std::make_unique<NormalizerSequence>(fields.at("normalizers"));
  fields.refuse_component("normalizer", type,
                          "NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Nmt, Prepend, Replace, ByteLevel and Sequence");
}

}  // namespace moeweld::tokenizer
