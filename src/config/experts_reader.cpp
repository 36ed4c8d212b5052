#include <algorithm>
#include <iterator>

#include "config/merge_reader.h"
#include "config/recipe_reader.h"
#include "config/yaml_document.h"
#include "moeweld/base/text.h"

namespace moeweld::config {

namespace {

std::vector<std::string> top_keys() {
  std::vector<std::string> keys = {"base_model",     "experts",      "gate_mode", "experts_per_token",
                                   "shared_experts", "architecture", "dtype",     "layout",
                                   "rope",           "moe_layers",   "name"};
  keys.insert(keys.end(), recipe_keys().begin(), recipe_keys().end());
  return keys;
}

const std::vector<std::string> kExpertKeys = {
    "source_model",       "expert",      "positive_prompts", "negative_prompts", "positive_token_ids",
    "negative_token_ids", "noise_scale", "residual_scale"};

struct GateName {
  const char* name;
  GateMode mode;
};
constexpr GateName kGates[] = {
    {"random", GateMode::kRandom},
    {"uniform_random", GateMode::kUniformRandom},
    {"orthogonal", GateMode::kOrthogonal},
    {"cheap_embed", GateMode::kCheapEmbed},
    {"hidden", GateMode::kHidden},
    {"hidden_last", GateMode::kHidden},
    {"hidden_avg", GateMode::kHiddenAverage},
    {"router_input", GateMode::kRouterInput},
};

/// What `architecture` may be a prefix of, in this order, and the family it means: mergekit-moe's names, then the families' own.
struct ArchitectureName {
  std::string_view name;
  const char* family;
};
constexpr ArchitectureName kArchitectures[] = {
    {"mixtral", "mixtral"},     {"deepseek moe", "deepseek"}, {"qwen moe", "qwen2_moe"}, {"qwen3 moe", "qwen3_moe"},
    {"qwen2_moe", "qwen2_moe"}, {"qwen3_moe", "qwen3_moe"},   {"deepseek", "deepseek"},  {"granitemoeshared", "granitemoeshared"},
};

template <typename T>
struct Choice {
  std::string_view name;
  T value;
};

class ExpertsReader {
 public:
  explicit ExpertsReader(YamlReader& reader) : reader_(reader) {}

  MoeConfig read(const YAML::Node& root) {
    config_.line = line_of(root);
    reader_.read_map(root, "the configuration", top_keys(),
                     [&](const std::string& key, const YAML::Node& value) { return read_key(key, value); });
    if (!has("base_model")) reader_.problem(config_.line, "'base_model' is missing: everything but the experts' FFN comes from it");
    check_recipe(config_, reader_);
    if (!has("experts") && !has("recipe"))
      reader_.problem(config_.line, "'experts' is missing, and there is no 'recipe' that makes them from the base");
    if (!has("gate_mode")) config_.gate_mode = has("recipe") ? GateMode::kRandom : GateMode::kHidden;
    const std::uint64_t num_experts = config_.num_experts();
    // Experts that are listed may be added to others: planning knows.
    if (config_.experts.empty() && num_experts != 0 && config_.experts_per_token > num_experts) {
      reader_.problem(config_.line_of("experts_per_token"), "experts_per_token is " + std::to_string(config_.experts_per_token) +
                                                                ", but there are only " + std::to_string(num_experts) + " experts");
    }
    if (num_experts > kMostExperts) {
      reader_.problem(config_.line_of("shards"),
                      std::to_string(num_experts) + " experts are more than the " + std::to_string(kMostExperts) + " that are supported");
    }
    if (is_gate_mode_known_) check_prompts();
    return std::move(config_);
  }

 private:
  bool has(const std::string& key) const { return config_.lines.contains(key); }

  bool read_key(const std::string& key, const YAML::Node& value) {
    config_.lines[key] = line_of(value);
    if (std::find(recipe_keys().begin(), recipe_keys().end(), key) != recipe_keys().end()) {
      read_recipe_key(key, value, reader_, config_.recipe);
    } else if (key == "base_model") {
      if (auto model = reader_.model(value, "base_model")) config_.base_model = std::move(*model);
    } else if (key == "experts") {
      if (!value.IsSequence() || value.size() == 0) {
        reader_.problem(line_of(value), "'experts' must be a list of at least one expert");
      } else {
        config_.experts = read_experts(value, "an expert");
      }
    } else if (key == "shared_experts") {
      read_shared_experts(value);
    } else if (key == "gate_mode") {
      read_gate_mode(value);
    } else if (key == "experts_per_token") {
      if (const auto count = reader_.integer(value, "experts_per_token", 1, kMostExperts))
        config_.experts_per_token = static_cast<std::uint32_t>(*count);
    } else if (key == "architecture") {
      if (!value.IsNull()) read_architecture(value);
    } else if (key == "dtype") {
      if (!value.IsNull()) config_.dtype = reader_.dtype(value, "dtype");
    } else if (key == "layout") {
      config_.layout = choose<Layout>(value, "layout", {{"per_expert", Layout::kPerExpert}, {"fused", Layout::kFused}});
    } else if (key == "rope") {
      config_.rope = choose<RopeChoice>(value, "rope",
                                        {{"keep", RopeChoice::kKeep}, {"fold_theta", RopeChoice::kFoldTheta}, {"ntk", RopeChoice::kNtk}})
                         .value_or(RopeChoice::kKeep);
    } else if (key == "moe_layers") {
      config_.moe_layers = read_moe_layers(value, reader_);
    } else if (key == "name") {
      reader_.note(line_of(value), "'name' has no effect: OUT names the result");
    } else {
      config_.lines.erase(key);
      return false;
    }
    return true;
  }

  template <typename T>
  std::optional<T> choose(const YAML::Node& node, const std::string& key, const std::vector<Choice<T>>& choices) {
    if (node.IsNull()) return std::nullopt;
    const auto name = reader_.text(node, key);
    if (!name) return std::nullopt;
    std::string all;
    for (const Choice<T>& choice : choices) {
      if (*name == choice.name) return choice.value;
      all += (all.empty() ? "" : &choice == &choices.back() ? " or " : ", ") + std::string(choice.name);
    }
    reader_.problem(line_of(node), key + " must be " + all + ", not '" + printable(*name, 60) + "'");
    return std::nullopt;
  }

  void read_gate_mode(const YAML::Node& node) {
    const auto name = reader_.text(node, "gate_mode");
    is_gate_mode_known_ = name.has_value();
    if (!name) return;
    std::vector<std::string> names;
    for (const GateName& gate : kGates) {
      names.push_back(gate.name);
      if (*name != gate.name) continue;
      config_.gate_mode = gate.mode;
      return;
    }
    is_gate_mode_known_ = false;
    const auto near = nearest(*name, names);
    reader_.problem(line_of(node), "unknown gate_mode '" + printable(*name, 60) + "'." + (near ? " Did you mean '" + *near + "'?" : ""));
  }

  void read_architecture(const YAML::Node& node) {
    const auto name = reader_.text(node, "architecture");
    if (!name) return;
    std::string lower;
    for (const char c : *name) lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    std::vector<std::string> names;
    for (const ArchitectureName& known : kArchitectures) {
      names.emplace_back(known.name);
      if (lower.empty() || !known.name.starts_with(lower)) continue;
      config_.architecture = known.family;
      return;
    }
    const auto near = nearest(lower, names);
    reader_.problem(line_of(node), "unknown architecture '" + printable(*name, 60) +
                                       "'; there are mixtral, deepseek, qwen2_moe, qwen3_moe and granitemoeshared." +
                                       (near ? " Did you mean '" + *near + "'?" : ""));
  }

  void read_shared_experts(const YAML::Node& node) {
    if (node.IsNull()) return;
    if (!node.IsSequence()) {
      reader_.problem(line_of(node), "'shared_experts' must be a list of experts");
      return;
    }
    config_.shared_experts = read_experts(node, "a shared expert");
  }

  /// One index, or a list with one for each layer.
  std::vector<std::uint32_t> read_indices(const YAML::Node& node) {
    std::vector<std::uint32_t> result;
    const auto add = [&](const YAML::Node& index) {
      if (const auto value = reader_.integer(index, "expert", 0, kMostExperts - 1)) result.push_back(static_cast<std::uint32_t>(*value));
    };
    if (!node.IsSequence()) {
      add(node);
    } else if (node.size() == 0) {
      reader_.problem(line_of(node), "expert must be an index, or a list with one for each layer");
    } else {
      for (const YAML::Node& index : node) add(index);
    }
    return result;
  }

  std::vector<Expert> read_experts(const YAML::Node& node, const std::string& what) {
    std::vector<Expert> result;
    for (const YAML::Node& element : node) {
      Expert expert;
      expert.line = line_of(element);
      bool has_source = false;
      reader_.read_map(element, what, kExpertKeys, [&](const std::string& key, const YAML::Node& value) {
        if (key == "source_model") {
          has_source = true;
          if (auto model = reader_.model(value, "source_model")) expert.source_model = std::move(*model);
        } else if (key == "expert") {
          expert.expert = read_indices(value);
        } else if (key == "positive_prompts") {
          expert.positive_prompts = reader_.texts(value, "positive_prompts");
        } else if (key == "negative_prompts") {
          expert.negative_prompts = reader_.texts(value, "negative_prompts");
        } else if (key == "positive_token_ids") {
          expert.positive_token_ids = reader_.token_ids(value, "positive_token_ids");
        } else if (key == "negative_token_ids") {
          expert.negative_token_ids = reader_.token_ids(value, "negative_token_ids");
        } else if (key == "noise_scale" || key == "residual_scale") {
          if (!value.IsNull()) (key == "noise_scale" ? expert.noise_scale : expert.residual_scale) = reader_.number(value, key);
        } else {
          return false;
        }
        return true;
      });
      if (element.IsMap() && !has_source) reader_.problem(expert.line, what + " has no 'source_model'");
      result.push_back(std::move(expert));
    }
    return result;
  }

  void check_prompts() {
    if (!needs_prompts(config_.gate_mode)) return;
    if (config_.experts.empty() && config_.recipe.copies != 0) {
      reader_.problem(config_.line_of("gate_mode"),
                      "this gate_mode makes router rows from prompts, and copies of the base have none; list 'experts' or use random");
    }
    bool all_have_prompts = true;
    for (const Expert& expert : config_.experts) {
      if (!expert.positive_token_ids.empty() || !expert.positive_prompts.empty()) continue;
      all_have_prompts = false;
      reader_.problem(expert.line, "this expert has neither positive_prompts nor positive_token_ids, which its gate_mode needs");
    }
    const auto same = [&](const Expert& a, const Expert& b) {
      return a.positive_prompts == b.positive_prompts && a.negative_prompts == b.negative_prompts &&
             a.positive_token_ids == b.positive_token_ids && a.negative_token_ids == b.negative_token_ids;
    };
    config_.identical_prompts = all_have_prompts && config_.experts.size() > 1 &&
                                std::all_of(config_.experts.begin(), config_.experts.end(),
                                            [&](const Expert& expert) { return same(expert, config_.experts.front()); });
  }

  YamlReader& reader_;
  MoeConfig config_;
  /// Which prompts an expert needs depends on it.
  bool is_gate_mode_known_ = true;
};

}  // namespace

std::string name_of(GateMode mode) {
  const auto* row = std::find_if(std::begin(kGates), std::end(kGates), [&](const GateName& gate) { return gate.mode == mode; });
  return row->name;
}

bool needs_prompts(GateMode mode) { return mode != GateMode::kRandom && mode != GateMode::kUniformRandom && mode != GateMode::kOrthogonal; }

int MoeConfig::line_of_model(const ModelReference& model) const {
  if (model == base_model) return line_of("base_model");
  for (const std::vector<Expert>* list : {&experts, &shared_experts}) {
    for (const Expert& expert : *list) {
      if (expert.source_model == model) return expert.line;
    }
  }
  return line_of("base_model");
}

MoeConfig read_moe_config(const YAML::Node& root, YamlReader& reader) { return ExpertsReader(reader).read(root); }

}  // namespace moeweld::config
