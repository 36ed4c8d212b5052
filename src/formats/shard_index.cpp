#include "moeweld/formats/shard_index.h"

#include <algorithm>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "moeweld/formats/json.h"

namespace moeweld::formats {
namespace {

constexpr std::size_t kMaxProblems = 20;

// Empty if the name is a plain file name within the directory, else what is wrong with it.
std::string fault_of_file_name(const std::string& name) {
  constexpr std::string_view kSuffix = ".safetensors";
  if (name.empty()) return "which is empty";
  if (name.find('/') != std::string::npos) return name.front() == '/' ? "which is an absolute path" : "which holds a '/'";
  if (name.find('\\') != std::string::npos) return "which holds a '\\'";
  if (name.find("..") != std::string::npos) return "which holds '..'";
  if (std::any_of(name.begin(), name.end(), [](unsigned char letter) { return letter < 0x20 || letter == 0x7f; })) {
    return "which holds a control character";
  }
  if (name.size() <= kSuffix.size() || name.substr(name.size() - kSuffix.size()) != kSuffix) return "which does not end in '.safetensors'";
  return "";
}

}  // namespace

ShardIndex parse_shard_index(std::string_view json, const std::string& path) {
  const Json document = parse_json(json, path, {.max_bytes = 100'000'000, .max_depth = 16});
  if (!document.is_object()) {
    throw Error(ErrorCode::kInvalidInput, std::string("the index is of JSON type ") + document.type_name() + ", not an object", path);
  }
  const auto found = document.find("weight_map");
  if (found == document.end()) throw Error(ErrorCode::kInvalidInput, "the index has no weight_map", path);
  if (!found->is_object()) {
    throw Error(ErrorCode::kInvalidInput, std::string("weight_map is of JSON type ") + found->type_name() + ", not an object", path);
  }
  if (found->empty()) throw Error(ErrorCode::kInvalidInput, "weight_map names no tensor", path);

  ShardIndex index;
  ProblemList problems;
  for (const auto& [tensor, file] : found->get_ref<const Json::object_t&>()) {
    std::string fault;
    if (tensor.empty()) {
      fault = "an entry of weight_map has an empty tensor name";
    } else if (!file.is_string()) {
      fault = std::string("has a file name of JSON type ") + file.type_name() + " in weight_map, not a string";
    } else if (std::string reason = fault_of_file_name(file.get_ref<const std::string&>()); !reason.empty()) {
      fault = "is said to be in file '" + printable(file.get_ref<const std::string&>()) + "', " + reason +
              "; plain names of safetensors files beside the index are accepted";
    } else {
      index.weight_map.emplace(tensor, file.get<std::string>());
      continue;
    }
    problems.add(Problem{ErrorCode::kInvalidInput, std::move(fault), path, 0, tensor});
    if (problems.problems().size() >= kMaxProblems) break;
  }
  problems.throw_if_any();
  return index;
}

std::string serialize_shard_index(const ShardIndex& index, std::uint64_t total_size_bytes) {
  std::string text = "{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(total_size_bytes) + "\n  },\n  \"weight_map\": {";
  const char* separator = "\n";
  for (const auto& [tensor, file] : index.weight_map) {
    text += separator;
    text += "    " + Json(tensor).dump() + ": " + Json(file).dump();
    separator = ",\n";
  }
  text += index.weight_map.empty() ? "}\n}\n" : "\n  }\n}\n";
  return text;
}

}  // namespace moeweld::formats
