#include <algorithm>

#include "config/merge_reader.h"
#include "config/yaml_document.h"
#include "moeweld/base/text.h"

namespace moeweld::config {

namespace {

const std::vector<std::string> kTopKeys = {"base_model",
                                           "experts",
                                           "gate_mode",
                                           "experts_per_token",
                                           "shared_experts",
                                           "architecture",
                                           "dtype",
                                           "layout",
                                           "rope",
                                           "moe_layers",
                                           "recipe",
                                           "copies",
                                           "shards",
                                           "ratio",
                                           "published_scaling",
                                           "attention_merge",
                                           "name"};
const std::vector<std::string> kExpertKeys = {"source_model",       "positive_prompts", "negative_prompts", "positive_token_ids",
                                              "negative_token_ids", "noise_scale",      "residual_scale"};

struct GateName {
  const char* name;
  GateMode mode;
  bool implemented;
};
constexpr GateName kGates[] = {
    {"random", GateMode::kRandom, true},
    {"uniform_random", GateMode::kUniformRandom, true},
    {"cheap_embed", GateMode::kCheapEmbed, true},
    {"orthogonal", GateMode::kOrthogonal, false},
    {"hidden", GateMode::kHidden, false},
    {"hidden_last", GateMode::kHidden, false},
    {"hidden_avg", GateMode::kHiddenAverage, false},
    {"router_input", GateMode::kRouterInput, false},
};

constexpr std::int64_t kMostExperts = 65'536;

class ExpertsReader {
 public:
  explicit ExpertsReader(YamlReader& reader) : reader_(reader) {}

  MoeConfig read(const YAML::Node& root) {
    config_.line = line_of(root);
    bool has_base = false;
    bool has_gate = false;
    int experts_line = 0;
    int per_token_line = config_.line;
    reader_.read_map(root, "the configuration", kTopKeys, [&](const std::string& key, const YAML::Node& value) {
      const int line = line_of(value);
      if (key == "base_model") {
        has_base = true;
        if (auto model = reader_.model(value, "base_model")) config_.base_model = std::move(*model);
      } else if (key == "experts") {
        experts_line = line;
        read_experts(value);
      } else if (key == "gate_mode") {
        has_gate = true;
        config_.gate_mode_line = line;
        read_gate_mode(value);
      } else if (key == "experts_per_token") {
        per_token_line = line;
        if (const auto count = reader_.integer(value, "experts_per_token", 1, kMostExperts))
          config_.experts_per_token = static_cast<std::uint32_t>(*count);
      } else if (key == "architecture") {
        if (!value.IsNull()) read_architecture(value);
      } else if (key == "dtype") {
        if (!value.IsNull()) config_.dtype = reader_.dtype(value, "dtype");
      } else if (key == "layout") {
        if (value.IsNull()) return true;
        const auto name = reader_.text(value, "layout");
        if (name == "per_expert")
          config_.layout = Layout::kPerExpert;
        else if (name == "fused")
          config_.layout = Layout::kFused;
        else if (name)
          reader_.problem(line, "layout must be per_expert or fused, not '" + printable(*name, 60) + "'");
      } else if (key == "shared_experts") {
        const bool is_empty = value.IsNull() || (value.IsSequence() && value.size() == 0);
        if (!is_empty) reader_.unsupported(line, "'shared_experts' come with a later version");
      } else if (key == "rope") {
        if (!value.IsScalar() || value.Scalar() != "keep") reader_.unsupported(line, "'rope' other than keep comes with a later version");
      } else if (key == "moe_layers") {
        if (!value.IsScalar() || value.Scalar() != "all")
          reader_.unsupported(line, "'moe_layers' other than all come with a later version");
      } else if (key == "recipe" || key == "copies" || key == "shards" || key == "ratio" || key == "published_scaling" ||
                 key == "attention_merge") {
        reader_.unsupported(line, "'" + key + "' (upcycling recipes) comes with a later version");
      } else if (key == "name") {
        reader_.note(line, "'name' has no effect: OUT names the result");
      } else {
        return false;
      }
      return true;
    });
    if (!has_base) reader_.problem(config_.line, "'base_model' is missing: everything but the experts' FFN comes from it");
    if (experts_line == 0) reader_.problem(config_.line, "'experts' is missing");
    if (!has_gate) {
      config_.gate_mode_line = experts_line != 0 ? experts_line : config_.line;
      reader_.unsupported(config_.gate_mode_line,
                          "there is no 'gate_mode', and its default, hidden, comes with a later version; random, uniform_random and "
                          "cheap_embed by positive_token_ids are there");
    }
    if (!config_.experts.empty() && config_.experts_per_token > config_.experts.size()) {
      reader_.problem(per_token_line, "experts_per_token is " + std::to_string(config_.experts_per_token) + ", but there are only " +
                                          std::to_string(config_.experts.size()) + " experts");
    }
    if (experts_line != 0 && is_gate_mode_known_) check_prompts(experts_line);
    return std::move(config_);
  }

 private:
  void read_gate_mode(const YAML::Node& node) {
    const auto name = reader_.text(node, "gate_mode");
    is_gate_mode_known_ = name.has_value();
    if (!name) return;
    std::vector<std::string> names;
    for (const GateName& gate : kGates) {
      names.push_back(gate.name);
      if (*name != gate.name) continue;
      config_.gate_mode = gate.mode;
      if (!gate.implemented)
        reader_.unsupported(
            line_of(node),
            "gate_mode " + *name + " comes with a later version; random, uniform_random and cheap_embed by positive_token_ids are there");
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
    config_.architecture = *name;
    if (!lower.empty() && std::string_view("mixtral").starts_with(lower)) return;
    for (const std::string_view known :
         {"deepseek moe", "qwen moe", "qwen3 moe", "qwen2_moe", "qwen3_moe", "deepseek", "granitemoeshared"}) {
      if (!lower.empty() && known.starts_with(lower)) {
        reader_.unsupported(line_of(node), "architecture '" + *name + "' comes with a later version; mixtral is there");
        return;
      }
    }
    reader_.problem(line_of(node), "unknown architecture '" + printable(*name, 60) + "'; there is mixtral");
  }

  void read_experts(const YAML::Node& node) {
    if (!node.IsSequence() || node.size() == 0) {
      reader_.problem(line_of(node), "'experts' must be a list of at least one expert");
      return;
    }
    for (const YAML::Node& element : node) {
      Expert expert;
      expert.line = line_of(element);
      bool has_source = false;
      reader_.read_map(element, "an expert", kExpertKeys, [&](const std::string& key, const YAML::Node& value) {
        const int line = line_of(value);
        if (key == "source_model") {
          has_source = true;
          if (auto model = reader_.model(value, "source_model")) expert.source_model = std::move(*model);
        } else if (key == "positive_prompts") {
          expert.positive_prompts = reader_.texts(value, "positive_prompts");
        } else if (key == "negative_prompts") {
          expert.negative_prompts = reader_.texts(value, "negative_prompts");
        } else if (key == "positive_token_ids") {
          expert.positive_token_ids = reader_.token_ids(value, "positive_token_ids");
        } else if (key == "negative_token_ids") {
          expert.negative_token_ids = reader_.token_ids(value, "negative_token_ids");
        } else if (key == "noise_scale" || key == "residual_scale") {
          if (value.IsNull()) return true;
          const double neutral = key == "noise_scale" ? 0.0 : 1.0;
          const auto scale = reader_.number(value, key);
          if (scale && *scale != neutral) reader_.unsupported(line, "'" + key + "' comes with a later version");
        } else {
          return false;
        }
        return true;
      });
      if (element.IsMap() && !has_source) reader_.problem(expert.line, "an expert has no 'source_model'");
      config_.experts.push_back(std::move(expert));
    }
  }

  /// What is wrong with prompts in any version is said even where the gate mode itself is still to come.
  void check_prompts(int experts_line) {
    if (config_.gate_mode == GateMode::kRandom || config_.gate_mode == GateMode::kUniformRandom ||
        config_.gate_mode == GateMode::kOrthogonal)
      return;
    bool all_have_prompts = true;
    bool any_text = false;
    for (const Expert& expert : config_.experts) {
      if (expert.positive_token_ids.empty() && expert.positive_prompts.empty()) {
        all_have_prompts = false;
        reader_.problem(expert.line, "this expert has neither positive_prompts nor positive_token_ids, which its gate_mode needs");
      }
      any_text = any_text || (expert.positive_token_ids.empty() && !expert.positive_prompts.empty()) ||
                 (expert.negative_token_ids.empty() && !expert.negative_prompts.empty());
    }
    const auto same = [&](const Expert& a, const Expert& b) {
      return a.positive_prompts == b.positive_prompts && a.negative_prompts == b.negative_prompts &&
             a.positive_token_ids == b.positive_token_ids && a.negative_token_ids == b.negative_token_ids;
    };
    const bool identical =
        config_.experts.size() > 1 && std::all_of(config_.experts.begin(), config_.experts.end(),
                                                  [&](const Expert& expert) { return same(expert, config_.experts.front()); });
    config_.identical_prompts = identical && all_have_prompts;
    config_.experts_line = experts_line;
    if (any_text && config_.gate_mode == GateMode::kCheapEmbed) {
      reader_.unsupported(config_.gate_mode_line,
                          "gate_mode cheap_embed by prompts comes with a later version, together with tokenizers; give positive_token_ids");
    }
  }

  YamlReader& reader_;
  MoeConfig config_;
  /// Which prompts an expert needs depends on it.
  bool is_gate_mode_known_ = true;
};

}  // namespace

MoeConfig read_moe_config(const YAML::Node& root, YamlReader& reader) { return ExpertsReader(reader).read(root); }

}  // namespace moeweld::config
