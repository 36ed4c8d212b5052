#include "plan/vocabulary.h"

#include <algorithm>
#include <map>

#include "moeweld/base/text.h"

namespace moeweld::plan {

namespace {

using formats::Json;

constexpr std::uint64_t kLargestTokenizerBytes = 512 << 20;

std::map<std::string, std::int64_t> read_vocabulary(Storage& storage, const formats::Checkpoint& checkpoint) {
  const std::string path = checkpoint.directory + "/tokenizer.json";
  const Json json = formats::parse_json(storage.read_text(path, kLargestTokenizerBytes), path, {.max_bytes = kLargestTokenizerBytes});
  std::map<std::string, std::int64_t> result;
  if (json.is_object() && json.contains("model") && json["model"].is_object() && json["model"].contains("vocab")) {
    const Json& vocabulary = json["model"]["vocab"];
    if (vocabulary.is_object()) {
      for (const auto& [token, id] : vocabulary.items()) {
        if (id.is_number_integer()) result[token] = id.get<std::int64_t>();
      }
    } else if (vocabulary.is_array()) {
      for (std::size_t id = 0; id < vocabulary.size(); ++id) {
        if (vocabulary[id].is_array() && !vocabulary[id].empty() && vocabulary[id][0].is_string()) {
          result[vocabulary[id][0].get<std::string>()] = static_cast<std::int64_t>(id);
        }
      }
    }
  }
  if (json.is_object() && json.contains("added_tokens") && json["added_tokens"].is_array()) {
    for (const Json& token : json["added_tokens"]) {
      if (token.is_object() && token.contains("content") && token["content"].is_string() && token.contains("id") &&
          token["id"].is_number_integer()) {
        result[token["content"].get<std::string>()] = token["id"].get<std::int64_t>();
      }
    }
  }
  return result;
}

std::optional<std::string> compare(const std::map<std::string, std::int64_t>& a, const std::map<std::string, std::int64_t>& b) {
  for (const auto& [token, id] : a) {
    const auto found = b.find(token);
    if (found == b.end()) return "token '" + printable(token, 60) + "' is only in the first";
    if (found->second != id)
      return "token '" + printable(token, 60) + "' has id " + std::to_string(id) + " in the first and " + std::to_string(found->second) +
             " in the second";
  }
  for (const auto& [token, id] : b) {
    if (!a.contains(token)) return "token '" + printable(token, 60) + "' is only in the second";
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> vocabulary_difference(Storage& storage, const formats::Checkpoint& a, const formats::Checkpoint& b) {
  if (a.directory == b.directory) return std::nullopt;
  if (a.has_file("tokenizer.json") && b.has_file("tokenizer.json"))
    return compare(read_vocabulary(storage, a), read_vocabulary(storage, b));
  for (const char* name : {"tokenizer.model", "vocab.json", "vocab.txt"}) {
    if (!a.has_file(name) || !b.has_file(name)) continue;
    if (storage.read_text(a.directory + "/" + name, kLargestTokenizerBytes) ==
        storage.read_text(b.directory + "/" + name, kLargestTokenizerBytes))
      return std::nullopt;
    return std::string(name) + " differs";
  }
  const auto size = [](const formats::Checkpoint& checkpoint) {
    return checkpoint.config.contains("vocab_size") && checkpoint.config["vocab_size"].is_number_integer()
               ? checkpoint.config["vocab_size"].get<std::int64_t>()
               : -1;
  };
  if (size(a) != size(b)) return "vocab_size is " + std::to_string(size(a)) + " and " + std::to_string(size(b));
  return std::nullopt;
}

}  // namespace moeweld::plan
