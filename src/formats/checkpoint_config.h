#pragma once
/// config.json of a model directory: read, and refused by name where it describes a quantised model.

#include <string>

#include "moeweld/formats/json.h"
#include "moeweld/storage/storage.h"

namespace moeweld::formats {

/// An object, always. Throws Error(kInvalidInput) if it is missing, huge, or not a JSON object.
Json read_model_config(Storage& storage, const std::string& directory);

/// Throws Error(kUnsupported) that names the quantisation method, and what to do instead.
void refuse_quantisation(const Json& config, const std::string& config_path);

}  // namespace moeweld::formats
