#include "plan/auxiliary_files.h"

#include <algorithm>
#include <array>
#include <map>

#include "moeweld/base/text.h"
#include "plan/chat_templates.h"

namespace moeweld::plan {

namespace {

using formats::Json;

constexpr std::array<std::string_view, 16> kTokenizerFiles = {"tokenizer.json",
                                                              "tokenizer.model",
                                                              "tokenizer_config.json",
                                                              "special_tokens_map.json",
                                                              "added_tokens.json",
                                                              "vocab.json",
                                                              "merges.txt",
                                                              "vocab.txt",
                                                              "spiece.model",
                                                              "tekken.json",
                                                              "sentencepiece.model",
                                                              "sentencepiece.bpe.model",
                                                              "chat_template.jinja",
                                                              "chat_template.json",
                                                              "normalizer.json",
                                                              "bpe.codes"};
constexpr std::array<std::string_view, 7> kModelFiles = {
    "generation_config.json",      "preprocessor_config.json",      "processor_config.json", "video_preprocessor_config.json",
    "image_processor_config.json", "feature_extractor_config.json", "configuration.json"};
constexpr std::uint64_t kLargestTextBytes = 64 << 20;

template <std::size_t N>
bool is_one_of(const std::string& name, const std::array<std::string_view, N>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

AuxiliaryFile copy_of(const formats::Checkpoint& checkpoint, const std::string& name) {
  return {.action = AuxiliaryFile::Action::kCopy, .name = name, .content = {}, .source = checkpoint.directory + "/" + name, .reason = {}};
}

AuxiliaryFile dropped(const std::string& name, std::string reason) {
  return {.action = AuxiliaryFile::Action::kDrop, .name = name, .content = {}, .source = {}, .reason = std::move(reason)};
}

std::string drop_reason(const std::string& name) {
  for (const char* ending : {".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".pkl", ".npz", ".safetensors"}) {
    if (name.ends_with(ending)) return "weights or training state of the input, not of the result";
  }
  if (name.ends_with(".md") || name.ends_with(".txt") || name.starts_with("LICENSE") || name.starts_with("USE_POLICY"))
    return "describes the input, not the result";
  if (name.ends_with(".index.json")) return "index of the input's weights";
  if (name == "moeweld_manifest.json" || name == "mergekit_config.yml" || name == "mergekit_moe_config.yml")
    return "describes how the input was made";
  return "not known to belong to a model";
}

AuxiliaryFile* find_file(std::vector<AuxiliaryFile>& files, const std::string& name) {
  for (AuxiliaryFile& file : files) {
    if (file.name == name && file.action != AuxiliaryFile::Action::kDrop) return &file;
  }
  return nullptr;
}

/// The template of one model: its own file, or the entry in tokenizer_config.json (of several, the one named default).
std::optional<std::string> template_of(Storage& storage, const formats::Checkpoint& checkpoint) {
  if (checkpoint.has_file("chat_template.jinja"))
    return storage.read_text(checkpoint.directory + "/chat_template.jinja", kLargestTextBytes);
  if (!checkpoint.has_file("tokenizer_config.json")) return std::nullopt;
  const std::string path = checkpoint.directory + "/tokenizer_config.json";
  const Json config = formats::parse_json(storage.read_text(path, kLargestTextBytes), path);
  if (!config.is_object() || !config.contains("chat_template")) return std::nullopt;
  const Json& value = config["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array()) {
    for (const Json& entry : value) {
      if (entry.is_object() && entry.value("name", "") == "default" && entry.contains("template") && entry["template"].is_string())
        return entry["template"].get<std::string>();
    }
  }
  return std::nullopt;
}

std::optional<std::string> most_frequent_template(Storage& storage, const std::vector<const formats::Checkpoint*>& models) {
  std::vector<std::pair<std::string, int>> votes;
  for (const formats::Checkpoint* model : models) {
    const auto text = template_of(storage, *model);
    if (!text) continue;
    const auto known = std::find_if(votes.begin(), votes.end(), [&](const auto& vote) { return vote.first == *text; });
    if (known != votes.end())
      ++known->second;
    else
      votes.emplace_back(*text, 1);
  }
  const auto best = std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return best == votes.end() ? std::nullopt : std::optional(best->first);
}

}  // namespace

std::vector<AuxiliaryFile> auxiliary_files(const formats::Checkpoint& base, const formats::Checkpoint& tokenizer,
                                           const PlanOptions& options) {
  std::vector<AuxiliaryFile> result;
  for (const std::string& name : base.other_files) {
    if (is_one_of(name, kTokenizerFiles)) {
      if (!options.copy_tokenizer) result.push_back(dropped(name, "--no-copy-tokenizer"));
      continue;  // those of `tokenizer` follow
    }
    if (is_one_of(name, kModelFiles)) {
      result.push_back(copy_of(base, name));
    } else if (name.ends_with(".py")) {
      result.push_back(options.trust_remote_code ? copy_of(base, name)
                                                 : dropped(name, "code of the input; copied with --trust-remote-code, never run"));
    } else {
      result.push_back(dropped(name, drop_reason(name)));
    }
  }
  if (options.copy_tokenizer) {
    for (const std::string& name : tokenizer.other_files) {
      if (is_one_of(name, kTokenizerFiles)) result.push_back(copy_of(tokenizer, name));
    }
  }
  return result;
}

void note_tokenizer_class(Storage& storage, const std::vector<AuxiliaryFile>& files, std::vector<std::string>& notes) {
  for (const AuxiliaryFile& file : files) {
    if (file.name != "tokenizer_config.json" || file.action != AuxiliaryFile::Action::kCopy) continue;
    const Json config = formats::parse_json(storage.read_text(file.source, kLargestTextBytes), file.source);
    if (!config.is_object() || !config.contains("tokenizer_class") || config["tokenizer_class"] != "TokenizersBackend") continue;
    notes.push_back(
        "tokenizer_config.json names the class TokenizersBackend of transformers 5, which transformers 4 cannot load; it is copied as it "
        "is. "
        "PreTrainedTokenizerFast in its place is read by both.");
  }
}

void set_chat_template(Storage& storage, const std::string& chat_template, int line, const std::string& config_path,
                       const std::vector<const formats::Checkpoint*>& models, std::vector<AuxiliaryFile>& files,
                       std::vector<std::string>& notes) {
  std::string text;
  if (chat_template == "auto") {
    const auto found = most_frequent_template(storage, models);
    if (!found) {
      notes.push_back("chat_template: auto finds no template in any model, so the tokenizer stays as it is");
      return;
    }
    text = *found;
  } else if (const auto named = named_chat_template(chat_template)) {
    text = *named;
  } else if (chat_template.find('{') != std::string::npos && chat_template.size() >= 20) {
    text = chat_template;
  } else {
    throw Error(Problem{ErrorCode::kInvalidConfig,
                        "chat_template '" + printable(chat_template, 60) + "' is neither a Jinja text nor one of auto, " +
                            chat_template_names() + ". Give the Jinja text itself.",
                        config_path,
                        line,
                        {}});
  }
  AuxiliaryFile* tokenizer_config = find_file(files, "tokenizer_config.json");
  if (tokenizer_config == nullptr) {
    notes.push_back("chat_template has no effect: no tokenizer_config.json is written");
    return;
  }
  Json config = formats::parse_json(storage.read_text(tokenizer_config->source, kLargestTextBytes), tokenizer_config->source);
  config["chat_template"] = text;
  tokenizer_config->action = AuxiliaryFile::Action::kWrite;
  tokenizer_config->content = config.dump(2) + "\n";
  tokenizer_config->reason = "chat_template of the configuration";
  std::erase_if(files, [](const AuxiliaryFile& file) { return file.name == "chat_template.jinja" || file.name == "chat_template.json"; });
  files.push_back({.action = AuxiliaryFile::Action::kWrite,
                   .name = "chat_template.jinja",
                   .content = text,
                   .source = {},
                   .reason = "chat_template of the configuration"});
}

}  // namespace moeweld::plan
