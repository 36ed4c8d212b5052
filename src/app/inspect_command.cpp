#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "app/run.h"
#include "moeweld/base/text.h"
#include "moeweld/exec/manifest.h"
#include "moeweld/model/catalog.h"
#include "moeweld/plan/planner.h"

namespace moeweld::app {

namespace {

using formats::Json;

/// What config.json says; empty if it leaves it to the architecture's default.
std::optional<bool> tie_word_embeddings(const Json& config) {
  for (const char* part : {"", "text_config"}) {
    const Json* object = &config;
    if (*part != '\0') {
      if (!config.is_object() || !config.contains(part)) continue;
      object = &config[part];
    }
    if (!object->is_object()) continue;
    const auto found = object->find("tie_word_embeddings");
    if (found != object->end() && found->is_boolean()) return found->get<bool>();
  }
  return std::nullopt;
}

std::string describe_head(bool has_head, std::optional<bool> tied) {
  if (has_head) return tied.value_or(false) ? "lm_head.weight, though config.json says tie_word_embeddings: true" : "lm_head.weight";
  if (!tied) return "no lm_head.weight, and config.json does not say tie_word_embeddings";
  return *tied ? "tied to the embedding" : "none: no lm_head.weight, and config.json says tie_word_embeddings: false";
}

Json describe_model(Storage& storage, const formats::Checkpoint& checkpoint, const std::string& name) {
  const model::Catalog catalog = model::make_catalog(checkpoint, {});
  Json json;
  json["schema"] = "moeweld.inspect/1";
  json["model"] = name;
  json["directory"] = checkpoint.directory;
  json["architecture"] = checkpoint.architecture();
  json["family"] = catalog.family == nullptr ? Json(nullptr) : Json(std::string(catalog.family->name));
  json["layers"] = Json::object();
  for (const auto& [prefix, count] : catalog.num_layers) json["layers"][prefix] = count;
  json["experts"] = catalog.num_experts;
  if (catalog.num_experts != 0) json["layout"] = catalog.layout == model::Layout::kFused ? "fused" : "per_expert";
  std::uint64_t parameters = 0;
  std::map<std::string, std::uint64_t> bytes;
  for (const formats::CheckpointTensor& tensor : checkpoint.tensors) {
    parameters += num_elements(tensor.shape);
    bytes[std::string(moeweld::name(tensor.dtype))] += tensor.size_bytes;
  }
  json["tensors"] = checkpoint.tensors.size();
  json["parameters"] = parameters;
  json["bytes"] = checkpoint.total_bytes();
  json["dtypes"] = Json::object();
  for (const auto& [dtype, count] : bytes) json["dtypes"][dtype] = count;
  const bool has_head = std::any_of(checkpoint.tensors.begin(), checkpoint.tensors.end(),
                                    [](const formats::CheckpointTensor& tensor) { return tensor.name.ends_with("lm_head.weight"); });
  const std::optional<bool> tied = tie_word_embeddings(checkpoint.config);
  json["tied_head"] = !has_head && tied.value_or(false);
  json["head"] = describe_head(has_head, tied);
  json["files"] = Json::array();
  for (const formats::CheckpointFile& file : checkpoint.files)
    json["files"].push_back({{"path", file.path}, {"size_bytes", file.identity.size_bytes}});
  json["notes"] = checkpoint.notes;
  for (const std::string& note : catalog.notes) json["notes"].push_back(note);
  std::uint64_t num_scaled = 0;
  for (const auto& [key, entry] : catalog.entries) num_scaled += entry.scale ? 1 : 0;
  if (num_scaled != 0) json["block_scaled_fp8"] = num_scaled;
  const std::string manifest_path = checkpoint.directory + "/" + exec::kManifestName;
  if (storage.exists(manifest_path)) {
    const exec::Manifest manifest = exec::parse_manifest(storage.read_text(manifest_path, std::uint64_t{1} << 30), manifest_path);
    json["made_by"] = "moeweld " + manifest.version;
    json["seed"] = manifest.seed;
  }
  return json;
}

void print_text(const Json& json) {
  const auto line = [](std::string_view key, const std::string& value) { fmt::print("{:<14}{}\n", key, value); };
  line("model", json["model"].get<std::string>());
  line("directory", json["directory"].get<std::string>());
  line("architecture",
       json["architecture"].get<std::string>() + (json["family"].is_null() ? " (no table: names are matched one to one)" : ""));
  for (const auto& [prefix, count] : json["layers"].items())
    line("layers", fmt::format("{} in {}", count.get<int>(), prefix.empty() ? "the model" : prefix));
  if (json["experts"].get<int>() != 0)
    line("experts", fmt::format("{} per layer, layout {}", json["experts"].get<int>(), json["layout"].get<std::string>()));
  line("parameters",
       fmt::format("{:.3g} billion in {} tensors", json["parameters"].get<double>() / 1e9, json["tensors"].get<std::uint64_t>()));
  std::string dtypes;
  for (const auto& [dtype, bytes] : json["dtypes"].items())
    dtypes += (dtypes.empty() ? "" : ", ") + dtype + " " + format_bytes(bytes.get<std::uint64_t>());
  line("stored", format_bytes(json["bytes"].get<std::uint64_t>()) + fmt::format(" in {} files ({})", json["files"].size(), dtypes));
  if (json.contains("block_scaled_fp8")) {
    line("quantised",
         fmt::format("{} matrices in FP8 (E4M3), one scale for 128 x 128 elements", json["block_scaled_fp8"].get<std::uint64_t>()));
  }
  line("head", json["head"].get<std::string>());
  if (json.contains("made_by"))
    line("made by", json["made_by"].get<std::string>() + fmt::format(", random seed {}", json["seed"].get<std::uint64_t>()));
  for (const Json& note : json["notes"]) line("note", note.get<std::string>());
}

}  // namespace

int run_inspect(Storage& storage, const Options& options) {
  plan::ModelSource models(storage, hub_cache(options));
  const formats::Checkpoint& checkpoint = models.get(config::parse_model_reference(options.input));
  const Json json = describe_model(storage, checkpoint, options.input);
  if (options.json) {
    fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    print_text(json);
  }
  return 0;
}

}  // namespace moeweld::app
