#pragma once
/// The "pre_tokenizer" of a tokenizer.json.

#include <memory>
#include <string>
#include <vector>

#include "tokenizer/fields.h"
#include "tokenizer/normalizers.h"

namespace moeweld::tokenizer {

/// Cuts every piece into smaller ones; pieces are never empty.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(std::vector<NormalizedText>& pieces) const = 0;
};

std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const Fields& fields);

}  // namespace moeweld::tokenizer
