#pragma once
/// From what a config calls a model to a directory on this machine. Never a network.

#include <map>
#include <optional>
#include <string>

#include "moeweld/storage/storage.h"

namespace moeweld::formats {

/// The part of the environment that decides where a hub cache is.
struct HubCacheEnvironment {
  std::string
      hub_cache;  ///< HF_HUB_CACHE (or HUGGINGFACE_HUB_CACHE), else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else HOME/.cache/…
};
HubCacheEnvironment hub_cache_environment();

/// `name` is a directory as given (relative to the working directory) or "org/name" found in the hub cache: models--org--name/, revision
/// (default "main") through refs/<revision> or a snapshot's commit (a unique prefix of at least 7 digits too). A directory wins over the
/// cache. Throws Error(kInvalidInput) that says every place that was looked at, and which revisions the cache has.
std::string locate_model(Storage& storage, const HubCacheEnvironment& environment, const std::string& name,
                         const std::optional<std::string>& revision);

}  // namespace moeweld::formats
