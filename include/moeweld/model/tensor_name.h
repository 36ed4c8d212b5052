#pragma once
/// Names on disk split into a pattern with place holders and the numbers that stood there.

#include <string>
#include <string_view>

namespace moeweld::model {

constexpr std::string_view kLayerHolder = "{layer}";
constexpr std::string_view kExpertHolder = "{expert}";

/// "model.layers.3.mlp.experts.7.up_proj.weight" → "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight", 3, 7.
struct NamePattern {
  std::string pattern;
  int layer = -1;
  int expert = -1;
};

/// The first ".<number>." is the layer; a later ".experts.<number>." is the expert. Throws Error(kInvalidInput) for a name that holds a
/// place holder itself: it could not be told from another name.
NamePattern split_name(std::string_view tensor_name);

/// The name that a pattern gives for these numbers.
std::string fill_pattern(std::string_view pattern, int layer, int expert);

}  // namespace moeweld::model
