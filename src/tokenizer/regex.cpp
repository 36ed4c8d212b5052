#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <new>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::tokenizer {
namespace {

// Steps of one match: generous for patterns that look at a long run of characters once or twice, soon over for those that try every way
// of cutting it.
constexpr std::size_t kStepsPerMatch = 1'000'000;
constexpr std::size_t kStepsPerByte = 16;
constexpr std::uint32_t kHeapLimitKib = 256 * 1024;

template <typename Type, void (*Free)(Type*)>
struct Freed {
  void operator()(Type* value) const { Free(value); }
};
template <typename Type, void (*Free)(Type*)>
using Owned = std::unique_ptr<Type, Freed<Type, Free>>;

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR as_units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

struct Regex::Compiled {
  std::string source;
  Owned<pcre2_code, pcre2_code_free> code;
};

Regex::Regex(std::string_view oniguruma) : compiled_(std::make_unique<Compiled>()) {
  compiled_->source = oniguruma;
  const std::string pattern = translate_regex(oniguruma);
  const Owned<pcre2_compile_context, pcre2_compile_context_free> context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_bsr(context.get(), PCRE2_BSR_UNICODE);
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled_->code.reset(pcre2_compile(as_units(pattern), pattern.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                      &error, &offset, context.get()));
  if (!compiled_->code) {
    throw Error(ErrorCode::kInvalidInput, "the regular expression '" + printable(oniguruma, 120) +
                                              "' cannot be compiled: " + message_of(error) + " (at byte " + std::to_string(offset) +
                                              " of '" + printable(pattern, 200) + "')");
  }
  // Without a compiler for this processor the interpreter runs it.
  pcre2_jit_compile(compiled_->code.get(), PCRE2_JIT_COMPLETE);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

namespace {

/// What a thread needs to match; made once.
struct Matcher {
  Owned<pcre2_match_data, pcre2_match_data_free> data{pcre2_match_data_create(1, nullptr)};
  Owned<pcre2_match_context, pcre2_match_context_free> context{pcre2_match_context_create(nullptr)};
  Matcher() {
    if (!data || !context) throw std::bad_alloc();
    pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  }
};

}  // namespace

std::optional<std::pair<std::size_t, std::size_t>> Regex::find(std::string_view text, std::size_t start) const {
  thread_local Matcher matcher;
  const std::size_t steps = kStepsPerMatch + kStepsPerByte * (text.size() - start);
  pcre2_set_match_limit(matcher.context.get(), static_cast<std::uint32_t>(std::min<std::size_t>(steps, 0xFFFFFFFF)));
  const auto match = [&](std::uint32_t options) {
    return pcre2_match(compiled_->code.get(), as_units(text), text.size(), start, PCRE2_NO_UTF_CHECK | options, matcher.data.get(),
                       matcher.context.get());
  };
  int result = match(0);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (result < 0) {
    throw Error(ErrorCode::kInvalidInput, "the tokenizer's regular expression '" + printable(compiled_->source, 120) +
                                              "' takes too many steps on this text (" + message_of(result) + ")");
  }
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(matcher.data.get());
  // \K in a look-ahead could end a match before its start; translate_regex lets no \K through.
  return std::pair(bounds[0], bounds[1]);
}

}  // namespace moeweld::tokenizer
