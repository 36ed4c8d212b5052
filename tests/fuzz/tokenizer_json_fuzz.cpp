/// Any text either is a tokenizer.json or is refused with Error; one that is accepted encodes a text, or refuses it, into ids below its
/// limit.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "moeweld/base/error.h"
#include "moeweld/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
  using namespace moeweld;
  try {
    const auto tokenizer = tokenizer::parse_tokenizer_json(std::string_view(reinterpret_cast<const char*>(data), size_bytes), "fuzz.json");
    try {
      for (const std::int64_t id : tokenizer->encode("a  b\xc3\xa9 12 <s>x\n\xe4\xb8\xad \xf0\x9f\x98\x80 don't")) {
        if (id < 0 || id >= tokenizer->id_limit()) std::abort();
      }
    } catch (const Error&) {  // an unknown token that is missing, or an expression that takes too long
    }
  } catch (const Error& error) {
    if (error.problems().empty() || error.problems().front().path != "fuzz.json") std::abort();
  }
  return 0;
}
