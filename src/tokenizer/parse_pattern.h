#pragma once
/// The "pattern" and "behavior" that several components have.

#include "tokenizer/fields.h"
#include "tokenizer/pattern.h"

namespace moeweld::tokenizer {

/// {"String": "…"} or {"Regex": "…"}.
Pattern parse_pattern(const Fields& fields);
Behavior parse_behavior(const Fields& fields);

}  // namespace moeweld::tokenizer
