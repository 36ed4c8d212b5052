#pragma once
/// The "normalizer" of a tokenizer.json.

#include <cstddef>
#include <memory>
#include <string>

#include "tokenizer/fields.h"

namespace moeweld::tokenizer {

/// A stretch of text between added tokens.
struct NormalizedText {
  std::string text;
  /// How many leading bytes stem from the first character of the whole input: what Metaspace's scheme "first" asks for.
  std::size_t start_bytes = 0;
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(NormalizedText& text) const = 0;
};

std::unique_ptr<const Normalizer> make_normalizer(const Fields& fields);

}  // namespace moeweld::tokenizer
