#include "tokenizer/parse_pattern.h"

#include "moeweld/base/text.h"

namespace moeweld::tokenizer {

Pattern parse_pattern(const Fields& fields) {
  if (const auto text = fields.optional_text("String")) return Pattern(*text);
  if (const auto regex = fields.optional_text("Regex")) return fields.placed([&] { return Pattern(Regex(*regex)); });
  fields.refuse("has neither 'String' nor 'Regex'");
}

Behavior parse_behavior(const Fields& fields) {
  const std::string name = fields.as_text();
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  fields.refuse("is '" + printable(name, 40) + "'; there are Removed, Isolated, MergedWithPrevious, MergedWithNext and Contiguous");
}

}  // namespace moeweld::tokenizer
