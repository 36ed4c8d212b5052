#include "config/recipe_reader.h"

#include <algorithm>

#include "config/yaml_document.h"
#include "moeweld/base/text.h"

namespace moeweld::config {

namespace {

constexpr std::int64_t kMostRecipeLayers = 1'000'000;

struct RecipeName {
  const char* name;
  RecipeKind kind;
  std::vector<std::string> keys;  ///< that it knows
};

const std::vector<RecipeName>& recipes() {
  static const std::vector<RecipeName> table = {
      {"sparse_upcycle", RecipeKind::kSparseUpcycle, {"copies"}},
      {"fine_grained", RecipeKind::kFineGrained, {"copies", "shards", "published_scaling"}},
      {"drop_upcycle", RecipeKind::kDropUpcycle, {"copies", "ratio"}},
      {"btx", RecipeKind::kBtx, {"attention_merge"}},
  };
  return table;
}

const RecipeName* find_recipe(RecipeKind kind) {
  for (const RecipeName& row : recipes()) {
    if (row.kind == kind) return &row;
  }
  return nullptr;
}

void read_kind(const YAML::Node& value, YamlReader& reader, Recipe& recipe) {
  const auto name = reader.text(value, "recipe");
  if (!name) return;
  std::vector<std::string> names;
  for (const RecipeName& row : recipes()) {
    names.emplace_back(row.name);
    if (*name == row.name) {
      recipe.kind = row.kind;
      return;
    }
  }
  const auto near = nearest(*name, names);
  reader.problem(line_of(value), "unknown recipe '" + printable(*name, 60) +
                                     "'; there are sparse_upcycle, fine_grained, drop_upcycle and btx." +
                                     (near ? " Did you mean '" + *near + "'?" : ""));
}

void read_method(const YAML::Node& value, YamlReader& reader, Recipe& recipe) {
  const auto name = reader.text(value, "the method of attention_merge");
  if (!name) return;
  const MethodInfo* method = reader.method(*name);
  if (method == nullptr) {
    std::vector<std::string> names;
    for (const MethodInfo& known : reader.methods()) names.push_back(known.name);
    const auto near = nearest(*name, names);
    reader.problem(line_of(value), "unknown merge method '" + printable(*name, 60) + "' in attention_merge." +
                                       (near ? " Did you mean '" + *near + "'?" : " `moeweld methods` lists them."));
    return;
  }
  if (!method->implemented) reader.unsupported(line_of(value), "the method '" + *name + "' comes with a later version");
  recipe.attention_method = *name;
}

void read_attention_merge(const YAML::Node& value, YamlReader& reader, Recipe& recipe) {
  if (value.IsScalar()) return read_method(value, reader, recipe);
  YAML::Node parameters;
  bool has_parameters = false;
  reader.read_map(value, "attention_merge", {"merge_method", "parameters"}, [&](const std::string& key, const YAML::Node& entry) {
    if (key == "merge_method") {
      read_method(entry, reader, recipe);
    } else if (key == "parameters") {
      parameters = entry;
      has_parameters = true;
    } else {
      return false;
    }
    return true;
  });
  if (has_parameters) recipe.attention_parameters = reader.parameters(parameters, reader.method(recipe.attention_method));
}

}  // namespace

const std::vector<std::string>& recipe_keys() {
  static const std::vector<std::string> keys = {"recipe", "copies", "shards", "ratio", "published_scaling", "attention_merge"};
  return keys;
}

void read_recipe_key(const std::string& key, const YAML::Node& value, YamlReader& reader, Recipe& recipe) {
  if (key == "recipe") {
    read_kind(value, reader, recipe);
  } else if (key == "copies") {
    if (const auto count = reader.integer(value, key, 1, kMostExperts)) recipe.copies = static_cast<std::uint32_t>(*count);
  } else if (key == "shards") {
    if (const auto count = reader.integer(value, key, 1, kMostExperts)) recipe.shards = static_cast<std::uint32_t>(*count);
  } else if (key == "ratio") {
    const auto ratio = reader.number(value, key);
    if (ratio && !(*ratio >= 0 && *ratio <= 1)) reader.problem(line_of(value), "ratio must be a number from 0 to 1");
    if (ratio) recipe.ratio = *ratio;
  } else if (key == "published_scaling") {
    const auto text = reader.text(value, key);
    if (!text) return;
    const auto flag = as_bool(Scalar(*text));
    if (!flag) reader.problem(line_of(value), "published_scaling must be true or false, not '" + printable(*text, 60) + "'");
    recipe.published_scaling = flag.value_or(false);
  } else {
    read_attention_merge(value, reader, recipe);
  }
}

void check_recipe(const MoeConfig& config, YamlReader& reader) {
  const bool is_named = config.lines.contains("recipe");
  const RecipeName* recipe = find_recipe(config.recipe.kind);
  if (is_named && recipe == nullptr) return;  // its name was not understood
  for (const std::string& key : recipe_keys()) {
    if (key == "recipe" || !config.lines.contains(key)) continue;
    if (recipe == nullptr) {
      reader.problem(config.line_of(key), "'" + key + "' belongs to a recipe, and there is no 'recipe'");
    } else if (std::find(recipe->keys.begin(), recipe->keys.end(), key) == recipe->keys.end()) {
      reader.problem(config.line_of(key), "'" + key + "' does not belong to the recipe " + recipe->name);
    }
  }
  if (recipe == nullptr) return;
  const int line = config.line_of("recipe");
  if (config.recipe.kind == RecipeKind::kBtx) {
    if (!config.lines.contains("experts")) reader.problem(line, "the recipe btx mixes 'experts' that were trained apart; list them");
    return;
  }
  if (!config.lines.contains("experts")) {
    if (!config.lines.contains("copies"))
      reader.problem(line, std::string("the recipe ") + recipe->name + " needs 'copies', the number of copies of the base (or 'experts')");
  } else if (config.lines.contains("copies") && config.recipe.copies != config.experts.size()) {
    reader.problem(config.line_of("copies"), "there are " + std::to_string(config.recipe.copies) + " 'copies' and " +
                                                 std::to_string(config.experts.size()) + " 'experts'; give one of the two");
  }
  if (config.recipe.kind == RecipeKind::kFineGrained && !config.lines.contains("shards"))
    reader.problem(line, "the recipe fine_grained needs 'shards', the number of parts that each copy's FFN is cut into");
}

MoeLayers read_moe_layers(const YAML::Node& node, YamlReader& reader) {
  MoeLayers result;
  if (node.IsMap()) {
    result.kind = MoeLayers::Kind::kEvery;
    bool has_every = false;
    reader.read_map(node, "moe_layers", {"every", "first"}, [&](const std::string& key, const YAML::Node& value) {
      if (key == "every") {
        has_every = true;
        if (const auto count = reader.integer(value, "every", 1, kMostRecipeLayers)) result.every = static_cast<std::uint32_t>(*count);
      } else if (key == "first") {
        if (const auto count = reader.integer(value, "first", 0, kMostRecipeLayers)) result.first = static_cast<std::uint32_t>(*count);
      } else {
        return false;
      }
      return true;
    });
    if (!has_every) reader.problem(line_of(node), "moe_layers has no 'every': write {every: n, first: m}, all, or a list of layers");
    return result;
  }
  if (node.IsSequence() && node.size() != 0) {
    result.kind = MoeLayers::Kind::kList;
    for (const YAML::Node& element : node) {
      if (const auto layer = reader.integer(element, "a layer of moe_layers", 0, kMostRecipeLayers))
        result.list.push_back(static_cast<std::uint32_t>(*layer));
    }
    return result;
  }
  if (!node.IsScalar() || node.Scalar() != "all")
    reader.problem(line_of(node), "moe_layers must be all, {every: n, first: m}, or a list of layers that is not empty");
  return result;
}

}  // namespace moeweld::config
