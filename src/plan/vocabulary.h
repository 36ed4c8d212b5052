#pragma once
/// Whether two models' tokenizers have the same tokens at the same ids.

#include <optional>
#include <string>

#include "moeweld/formats/checkpoint.h"
#include "moeweld/storage/storage.h"

namespace moeweld::plan {

/// What differs, as half a sentence ("token 'x' has id 3 in one and 5 in the other"), or nothing. Looks at tokenizer.json's vocabulary with
/// its added tokens; without it at the bytes of tokenizer.model, vocab.json or vocab.txt; without any of them at config.json's vocab_size.
std::optional<std::string> vocabulary_difference(Storage& storage, const formats::Checkpoint& a, const formats::Checkpoint& b);

}  // namespace moeweld::plan
