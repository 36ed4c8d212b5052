#include "moeweld/exec/manifest.h"

#include <set>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::exec {

namespace {

using formats::Json;

constexpr std::string_view kDigestPrefix = "xxh3-128-1MiB:";

/// Reads members of one JSON object and says which one is wrong and where.
class ObjectReader {
 public:
  ObjectReader(const Json& object, std::string where, const std::string& path) : object_(object), where_(std::move(where)), path_(path) {
    if (!object_.is_object()) fail(where_ + " is not an object");
  }
  std::string text(const char* key) const {
    const Json& value = member(key);
    if (!value.is_string()) fail(where_ + "'s \"" + key + "\" is not a string");
    return value.get<std::string>();
  }
  std::uint64_t count(const char* key) const {
    const Json& value = member(key);
    if (!value.is_number_integer() || (!value.is_number_unsigned() && value.get<std::int64_t>() < 0)) {
      fail(where_ + "'s \"" + key + "\" is not a whole number of at least 0");
    }
    return value.get<std::uint64_t>();
  }
  std::int64_t integer(const char* key) const {
    const Json& value = member(key);
    if (!value.is_number_integer()) fail(where_ + "'s \"" + key + "\" is not a whole number");
    return value.get<std::int64_t>();
  }
  const Json& list(const char* key) const {
    const Json& value = member(key);
    if (!value.is_array()) fail(where_ + "'s \"" + key + "\" is not a list");
    return value;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kInvalidInput, what + ", so this is not a manifest that moeweld wrote. Merge again, or restore the file.",
                path_);
  }

 private:
  const Json& member(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(where_ + " has no \"" + key + "\"");
    return *found;
  }
  const Json& object_;
  std::string where_;
  const std::string& path_;
};

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

bool is_digest(const std::string& text) {
  return text.size() == kDigestPrefix.size() + 32 && text.starts_with(kDigestPrefix) &&
         text.find_first_not_of("0123456789abcdef", kDigestPrefix.size()) == std::string::npos;
}

}  // namespace

namespace {

/// "3,0,1,2": one text for the many numbers of a large layer; null where all stay.
Json order_json(const std::vector<std::uint32_t>& order) {
  bool stays = true;
  std::string text;
  for (std::size_t i = 0; i < order.size(); ++i) {
    stays = stays && order[i] == i;
    text += (i == 0 ? "" : ",") + std::to_string(order[i]);
  }
  return stays ? Json() : Json(std::move(text));
}

}  // namespace

Json to_json(const ManifestAlignment& alignment) {
  Json neurons = Json::array();
  for (const std::vector<std::uint32_t>& order : alignment.neurons) neurons.push_back(order_json(order));
  return {{"layer", alignment.layer},
          {"model", alignment.model},
          {"experts", alignment.experts},
          {"neurons", std::move(neurons)},
          {"router", {{"before", alignment.router_before}, {"after", alignment.router_after}}},
          {"weights", {{"before", alignment.weights_before}, {"after", alignment.weights_after}}}};
}

std::string serialize_manifest(const Manifest& manifest) {
  Json json = {{"schema", kManifestSchema},
               {"version", manifest.version},
               {"command_line", manifest.command_line},
               {"seed", manifest.seed},
               {"simd_targets", manifest.simd_targets},
               {"config", manifest.config},
               {"inputs", Json::array()},
               {"files", Json::array()}};
  if (!manifest.plan_digest.empty()) json["plan_digest"] = manifest.plan_digest;
  if (!manifest.blas_core.empty()) json["blas_core"] = manifest.blas_core;
  if (!manifest.outputs.empty()) json["outputs"] = manifest.outputs;
  if (!manifest.composition.empty()) json["composition"] = manifest.composition;
  for (const ManifestAlignment& alignment : manifest.alignments) json["alignments"].push_back(to_json(alignment));
  for (const ManifestInput& input : manifest.inputs) {
    json["inputs"].push_back(
        {{"model", input.model}, {"path", input.path}, {"size_bytes", input.size_bytes}, {"modified_ns", input.modified_ns}});
  }
  for (const ManifestFile& file : manifest.files) {
    json["files"].push_back({{"name", file.name}, {"size_bytes", file.size_bytes}, {"digest", file.digest}});
  }
  // Paths need not be UTF-8 on Linux; a manifest always is.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Manifest parse_manifest(const std::string& text, const std::string& path) {
  const Json json = formats::parse_json(text, path);
  const ObjectReader top(json, "the manifest", path);
  const std::string schema = top.text("schema");
  if (schema != kManifestSchema) {
    throw Error(ErrorCode::kInvalidInput,
                "has schema \"" + printable(schema, 80) + "\", and this version of moeweld reads \"" + kManifestSchema +
                    "\". Use the version of moeweld that wrote it, or a newer one.",
                path);
  }
  Manifest manifest;
  manifest.version = top.text("version");
  manifest.command_line = top.text("command_line");
  manifest.seed = top.count("seed");
  for (const Json& target : top.list("simd_targets")) {
    if (!target.is_string()) top.fail("an entry of \"simd_targets\" is not a string");
    manifest.simd_targets.push_back(target.get<std::string>());
  }
  if (json.contains("plan_digest")) manifest.plan_digest = top.text("plan_digest");
  manifest.config = top.text("config");
  if (json.contains("outputs")) {
    for (const Json& name : top.list("outputs")) {
      if (!name.is_string() || !is_plain_name(name.get<std::string>())) top.fail("an entry of \"outputs\" is not a plain directory name");
      manifest.outputs.push_back(name.get<std::string>());
    }
  }
  for (const Json& entry : top.list("inputs")) {
    const ObjectReader input(entry, "an entry of \"inputs\"", path);
    manifest.inputs.push_back({input.text("model"), input.text("path"), input.count("size_bytes"), input.integer("modified_ns")});
  }
  std::set<std::string> names;
  for (const Json& entry : top.list("files")) {
    const ObjectReader file(entry, "an entry of \"files\"", path);
    ManifestFile result{file.text("name"), file.count("size_bytes"), file.text("digest")};
    if (!is_plain_name(result.name)) file.fail("\"files\" names '" + printable(result.name, 100) + "', which is not a plain file name");
    if (!is_digest(result.digest))
      file.fail("the digest of '" + printable(result.name, 100) + "' is not " + std::string(kDigestPrefix) + "<32 hex digits>");
    if (!names.insert(result.name).second) file.fail("\"files\" names '" + printable(result.name, 100) + "' twice");
    manifest.files.push_back(std::move(result));
  }
  return manifest;
}

}  // namespace moeweld::exec
