#include "moeweld/model/tensor_name.h"

#include <charconv>
#include <optional>

#include "moeweld/base/error.h"
#include "moeweld/model/catalog.h"

namespace moeweld::model {
namespace {

/// Only what prints back as it was read: "01" is part of a name, not an index.
std::optional<int> parse_index(std::string_view text) {
  if (text.empty() || text.size() > 9 || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  for (const char digit : text) {
    if (digit < '0' || digit > '9') return std::nullopt;
  }
  int value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

struct IndexSpot {
  std::size_t begin = std::string_view::npos;
  std::size_t length = 0;
  int value = -1;
};

/// The first component from `from` on that is a number, has a component after it, and stands after `word` (any word if empty).
IndexSpot find_index(std::string_view name, std::size_t from, std::string_view word) {
  std::size_t dot = name.find('.', from);
  std::size_t previous_begin = from;
  while (dot != std::string_view::npos) {
    const std::size_t begin = dot + 1;
    const std::size_t end = name.find('.', begin);
    if (end == std::string_view::npos) break;
    const std::string_view previous = name.substr(previous_begin, dot - previous_begin);
    if (word.empty() || previous == word) {
      if (const auto value = parse_index(name.substr(begin, end - begin))) return {begin, end - begin, *value};
    }
    previous_begin = begin;
    dot = end;
  }
  return {};
}

void replace_first(std::string& text, std::string_view holder, const std::string& value) {
  const std::size_t position = text.find(holder);
  if (position != std::string::npos) text.replace(position, holder.size(), value);
}

}  // namespace

NamePattern split_name(std::string_view tensor_name) {
  if (tensor_name.find(kLayerHolder) != std::string_view::npos || tensor_name.find(kExpertHolder) != std::string_view::npos) {
    throw Error(ErrorCode::kInvalidInput, "has a place holder, {layer} or {expert}, in its name. Rename the tensor.", {},
                std::string(tensor_name));
  }
  NamePattern result;
  const IndexSpot layer = find_index(tensor_name, 0, {});
  if (layer.value < 0) {
    result.pattern = tensor_name;
    return result;
  }
  result.layer = layer.value;
  const std::size_t after_layer = layer.begin + layer.length + 1;
  std::string rest(tensor_name.substr(after_layer));
  const IndexSpot expert = find_index(rest, 0, "experts");
  if (expert.value >= 0) {
    result.expert = expert.value;
    rest.replace(expert.begin, expert.length, kExpertHolder);
  }
  result.pattern = std::string(tensor_name.substr(0, layer.begin)) + std::string(kLayerHolder) + "." + rest;
  return result;
}

std::string fill_pattern(std::string_view pattern, int layer, int expert) {
  std::string result(pattern);
  if (layer >= 0) replace_first(result, kLayerHolder, std::to_string(layer));
  if (expert >= 0) replace_first(result, kExpertHolder, std::to_string(expert));
  return result;
}

std::string layer_prefix(std::string_view tensor_name) {
  const IndexSpot layer = find_index(tensor_name, 0, {});
  if (layer.value < 0) return {};
  const std::string_view before = tensor_name.substr(0, layer.begin - 1);
  const std::size_t dot = before.rfind('.');
  return std::string(dot == std::string_view::npos ? before : before.substr(0, dot));
}

}  // namespace moeweld::model
