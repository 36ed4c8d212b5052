#include "app/inspection.h"

#include <fmt/format.h>

#include <algorithm>

#include "app/table.h"
#include "moeweld/base/text.h"
#include "moeweld/model/catalog.h"

namespace moeweld::app {

namespace {

constexpr std::uint64_t kMaxManifestBytes = 1'000'000'000;
constexpr const char* kSchema = "moeweld.inspect/1";

std::string format_count(std::uint64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1'000'000'000) return fmt::format("{:.4g} billion", value / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.4g} million", value / 1e6);
  return std::to_string(count);
}

std::optional<bool> find_tied_head(const formats::Checkpoint& checkpoint, const model::Catalog& catalog) {
  const auto has = [&](const char* role) {
    return std::any_of(catalog.entries.begin(), catalog.entries.end(), [&](const auto& entry) { return entry.first.role == role; });
  };
  if (const auto tied = checkpoint.config.find("tie_word_embeddings"); tied != checkpoint.config.end() && tied->is_boolean())
    return tied->get<bool>();
  if (catalog.family == nullptr || !has("token_embedding")) return std::nullopt;
  return !has("lm_head");
}

std::string layers_text(const std::map<std::string, int>& num_layers) {
  if (num_layers.empty()) return "none";
  if (num_layers.size() == 1) return std::to_string(num_layers.begin()->second);
  std::vector<std::string> parts;
  for (const auto& [prefix, count] : num_layers) parts.push_back(fmt::format("{} in {}", count, printable(prefix, 100)));
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

Inspection inspect(Storage& storage, const formats::Checkpoint& checkpoint, const std::string& reference) {
  const model::Catalog catalog = model::make_catalog(checkpoint, checkpoint.architecture());
  Inspection result;
  result.reference = reference;
  result.directory = checkpoint.directory;
  result.architecture = checkpoint.architecture();
  if (catalog.family != nullptr) result.family = catalog.family->name;
  result.num_layers = catalog.num_layers;
  result.num_experts = catalog.num_experts;
  if (const auto active = checkpoint.config.find("num_experts_per_tok"); active != checkpoint.config.end() && active->is_number_integer()) {
    result.experts_per_token = active->get<int>();
  }
  if (catalog.num_experts > 0) result.layout = catalog.layout == model::Layout::kFused ? "fused" : "per-expert";
  for (const formats::CheckpointTensor& tensor : checkpoint.tensors) {
    DTypeShare& share = result.dtypes[std::string(name(tensor.dtype))];
    const std::uint64_t count = num_elements(tensor.shape);
    ++share.num_tensors;
    share.num_elements += count;
    share.size_bytes += tensor.size_bytes;
    ++result.num_tensors;
    result.num_parameters += count;
    result.size_bytes += tensor.size_bytes;
  }
  result.tied_head = find_tied_head(checkpoint, catalog);
  for (const formats::CheckpointFile& file : checkpoint.files) {
    result.files.emplace_back(file.path.substr(file.path.find_last_of('/') + 1), file.identity.size_bytes);
  }
  result.other_files = checkpoint.other_files;
  result.notes = checkpoint.notes;
  result.dropped = catalog.dropped;
  if (const std::string path = checkpoint.directory + "/" + exec::kManifestName; storage.exists(path)) {
    result.manifest = exec::parse_manifest(storage.read_text(path, kMaxManifestBytes), path);
  }
  return result;
}

std::string inspection_text(const Inspection& inspection) {
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const char* label, const std::string& value) { rows.push_back({label, value}); };
  add("model", printable(inspection.reference));
  if (inspection.directory != inspection.reference) add("directory", printable(inspection.directory));
  add("architecture", inspection.architecture.empty() ? "not named in config.json" : printable(inspection.architecture, 100));
  add("family", inspection.family.empty() ? "no table: tensors are matched by name" : inspection.family);
  add("layers", layers_text(inspection.num_layers));
  if (inspection.num_experts > 0) {
    const std::string active = inspection.experts_per_token ? fmt::format(", {} per token", *inspection.experts_per_token) : "";
    add("experts", fmt::format("{}{}, {} layout", inspection.num_experts, active, inspection.layout));
  }
  add("tensors", fmt::format("{}, {} parameters, {}", inspection.num_tensors, format_count(inspection.num_parameters),
                             format_bytes(inspection.size_bytes)));
  for (const auto& [dtype, share] : inspection.dtypes) {
    add(dtype == inspection.dtypes.begin()->first ? "dtypes" : "",
        fmt::format("{}: {} tensors, {}", dtype, share.num_tensors, format_bytes(share.size_bytes)));
  }
  if (inspection.tied_head) add("head", *inspection.tied_head ? "tied to the token embedding" : "of its own");
  for (std::size_t i = 0; i < inspection.files.size(); ++i) {
    add(i == 0 ? "files" : "", fmt::format("{}  {}", printable(inspection.files[i].first, 100), format_bytes(inspection.files[i].second)));
  }
  for (std::size_t i = 0; i < inspection.other_files.size(); ++i)
    add(i == 0 ? "other files" : "", printable(inspection.other_files[i], 100));
  if (inspection.manifest) {
    const exec::Manifest& manifest = *inspection.manifest;
    add("merged by", fmt::format("moeweld {}, random seed {}", printable(manifest.version, 40), manifest.seed));
    add("command", printable(manifest.command_line));
    for (std::size_t i = 0; i < manifest.inputs.size(); ++i) add(i == 0 ? "inputs" : "", printable(manifest.inputs[i].path));
  }
  std::string text = aligned(rows);
  for (const std::string& note : inspection.notes) text += "note: " + note + "\n";
  if (!inspection.dropped.empty()) {
    text += fmt::format("note: merging does not carry over {}{}: {}\n", printable(inspection.dropped.front().first, 100),
                        inspection.dropped.size() == 1 ? "" : fmt::format(" and {} more", inspection.dropped.size() - 1),
                        inspection.dropped.front().second);
  }
  return text;
}

formats::Json inspection_json(const Inspection& inspection) {
  using formats::Json;
  Json json = {
      {"schema", kSchema}, {"model", inspection.reference}, {"directory", inspection.directory}, {"architecture", inspection.architecture}};
  json["family"] = inspection.family.empty() ? Json() : Json(inspection.family);
  json["layers"] = Json::object();
  for (const auto& [prefix, count] : inspection.num_layers) json["layers"][prefix] = count;
  json["experts"] = inspection.num_experts;
  json["experts_per_token"] = inspection.experts_per_token ? Json(*inspection.experts_per_token) : Json();
  json["layout"] = inspection.layout.empty() ? Json() : Json(inspection.layout);
  json["tensors"] = inspection.num_tensors;
  json["parameters"] = inspection.num_parameters;
  json["size_bytes"] = inspection.size_bytes;
  json["dtypes"] = Json::object();
  for (const auto& [dtype, share] : inspection.dtypes) {
    json["dtypes"][dtype] = {{"tensors", share.num_tensors}, {"parameters", share.num_elements}, {"size_bytes", share.size_bytes}};
  }
  json["tied_head"] = inspection.tied_head ? Json(*inspection.tied_head) : Json();
  json["files"] = Json::array();
  for (const auto& [name, size_bytes] : inspection.files) json["files"].push_back({{"name", name}, {"size_bytes", size_bytes}});
  json["other_files"] = inspection.other_files;
  json["notes"] = inspection.notes;
  json["dropped"] = Json::array();
  for (const auto& [name, reason] : inspection.dropped) json["dropped"].push_back({{"name", name}, {"reason", reason}});
  if (inspection.manifest) {
    const exec::Manifest& manifest = *inspection.manifest;
    json["manifest"] = {
        {"version", manifest.version}, {"seed", manifest.seed}, {"command_line", manifest.command_line}, {"config", manifest.config}};
    json["manifest"]["inputs"] = Json::array();
    for (const exec::ManifestInput& input : manifest.inputs) {
      json["manifest"]["inputs"].push_back({{"model", input.model}, {"path", input.path}, {"size_bytes", input.size_bytes}});
    }
  }
  return json;
}

}  // namespace moeweld::app
