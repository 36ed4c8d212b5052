#pragma once
/// config.json of a dense model that is taken out of a mixture.

#include <cstdint>
#include <string>
#include <vector>

#include "moeweld/formats/json.h"
#include "moeweld/model/family.h"

namespace moeweld::model {

/// What an expert of `source` becomes: mixtral → mistral, qwen2_moe → qwen2, qwen3_moe → qwen3, deepseek → llama, granitemoe and
/// granitemoeshared → granite; olmoe, whose norms no dense family has, → olmoe with one expert. Null for the others.
const Family* extracted_family(const Family& source);

/// Every field that changes results is written explicitly, with the source family's default where `moe` says nothing. `intermediate_size`:
/// rows of the FFN's gate matrix. Throws Error with all problems: kUnsupported where the twin cannot hold what changes results,
/// kInvalidInput for fields without meaning, kUnsupported for a source without a twin.
formats::Json extracted_config(const Family& source, const formats::Json& moe, std::uint64_t intermediate_size,
                               std::vector<std::string>& notes);

}  // namespace moeweld::model
