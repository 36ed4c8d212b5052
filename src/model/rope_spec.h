#pragma once
/// The rope fields of config.json, resolved.

#include <string>

#include "moeweld/base/error.h"
#include "moeweld/formats/json.h"
#include "moeweld/model/transformer.h"

namespace moeweld::model {

/// As transformers resolves them. What it does not know or what is missing goes to `problems`, with `path`.
RopeSpec read_rope_spec(const formats::Json& config, std::uint64_t head_dim, std::uint64_t max_positions, ProblemList& problems,
                        const std::string& path);

}  // namespace moeweld::model
