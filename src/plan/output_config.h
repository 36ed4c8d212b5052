#pragma once
/// config.json of a merge.

#include <optional>
#include <string>
#include <vector>

#include "moeweld/formats/json.h"
#include "plan/input_models.h"
#include "plan/slices.h"
#include "plan/tensor_matching.h"

namespace moeweld::plan {

/// The donor's config.json for the output: layers selected, dtype, tied head, vocabulary size, rope in the form that every reader
/// understands. `vocabulary_rows`: rows of the truncated embedding, if it was.
formats::Json output_config(const InputModel& donor, const std::vector<Module>& modules, const Matching& matching, DType dtype,
                            std::optional<std::uint64_t> vocabulary_rows, std::vector<std::string>& notes);

}  // namespace moeweld::plan
