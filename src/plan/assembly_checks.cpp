#include "plan/assembly_checks.h"

#include <algorithm>

#include "moeweld/base/shape.h"
#include "moeweld/model/assembled_config.h"
#include "plan/assembly_family.h"

namespace moeweld::plan {

namespace {

using config::MoeConfig;
using config::RecipeKind;
using model::TensorKey;

Shape shape_of(const InputModel& input, const TensorKey& key) {
  const auto found = input.catalog.entries.find(key);
  return found == input.catalog.entries.end() ? Shape{} : found->second.shape;
}

/// Of the FFN's gate matrix; 0 where there is none.
std::uint64_t hidden_size(const InputModel& input) {
  const Shape gate = shape_of(input, {0, -1, "mlp_gate_proj"});
  return gate.size() == 2 ? gate[1] : 0;
}

class Checker {
 public:
  Checker(const Assembly& assembly, const PlanOptions& options, ProblemList& problems, MergePlan& plan)
      : assembly_(assembly), config_(assembly.config), options_(options), problems_(problems), plan_(plan) {}

  void run() {
    for (const InputModel& input : assembly_.inputs.all()) check_layers(input);
    for (std::size_t i = 0; i < assembly_.experts.size(); ++i) {
      // Shards of one copy are one source.
      if (i == 0 || assembly_.experts[i].shard == 0) check_source(assembly_.experts[i], "expert " + std::to_string(i));
    }
    for (std::size_t i = 0; i < assembly_.shared.size(); ++i) check_source(assembly_.shared[i], "shared expert " + std::to_string(i));
    check_sparse_layers();
    check_widths();
    check_shards();
    check_degenerate();
    const std::size_t count = assembly_.experts.size();
    if (config_.experts_per_token > count) {
      problem(ErrorCode::kInvalidConfig,
              "experts_per_token is " + std::to_string(config_.experts_per_token) + ", but there are only " + std::to_string(count) +
                  " experts",
              config_.line_of("experts_per_token"));
    }
    if ((count & (count - 1)) != 0) {
      plan_.warnings.push_back(std::to_string(count) + " experts are no power of two; older versions of llama.cpp cannot read such a " +
                               title_of(assembly_.family));
    }
  }

 private:
  const InputModel& base() const { return assembly_.inputs[0]; }
  const InputModel& input_of(const ExpertSource& expert) const { return assembly_.inputs[expert.model]; }

  void problem(ErrorCode code, std::string message, int line) {
    problems_.add(Problem{code, std::move(message), assembly_.file.path, line, {}});
  }

  int line_of(const InputModel& input) const {
    for (const auto* experts : {&config_.experts, &config_.shared_experts}) {
      for (const config::Expert& expert : *experts) {
        if (expert.source_model == input.reference) return expert.line;
      }
    }
    return config_.line_of("base_model");
  }

  void check_layers(const InputModel& input) {
    if (&input == &base()) return;
    if (num_layers_of(input) != num_layers_of(base())) {
      problem(ErrorCode::kInvalidInput,
              "'" + base().label + "' has " + std::to_string(num_layers_of(base())) + " layers and '" + input.label + "' has " +
                  std::to_string(num_layers_of(input)) + "; experts need as many layers as the base",
              line_of(input));
    }
    // btx merges what is unlike here, and says so itself.
    if (config_.recipe.kind == RecipeKind::kBtx) return;
    const auto compare = [&](const char* what, const TensorKey& key) {
      const Shape own = shape_of(base(), key);
      const Shape other = shape_of(input, key);
      if (own == other) return;
      plan_.notes.push_back("'" + input.label + "' has " + what + " of " + to_string(other) + ", the base of " + to_string(own) +
                            ": only its FFN is used");
    };
    compare("a vocabulary", {-1, -1, "token_embedding"});
    compare("query heads", {0, -1, "attention_q"});
    compare("key heads", {0, -1, "attention_k"});
  }

  void check_source(const ExpertSource& expert, const std::string& who) {
    const InputModel& input = input_of(expert);
    if (!expert.indices.empty()) {
      problem(ErrorCode::kInvalidConfig, who + " ('" + input.label + "') is a dense model, so there is no 'expert' to choose; leave it out",
              expert.line);
    }
    const std::uint64_t base_hidden = base().catalog.entries.at({-1, -1, "final_norm"}).shape.at(0);
    if (hidden_size(input) != base_hidden) {
      problem(ErrorCode::kInvalidInput,
              who + " ('" + input.label + "') has a hidden size of " + std::to_string(hidden_size(input)) + ", the base of " +
                  std::to_string(base_hidden),
              expert.line);
    }
    if (activation_of(input) != activation_of(base())) {
      problem(ErrorCode::kUnsupported,
              who + " ('" + input.label + "') has hidden_act " + activation_of(input) + ", the base " + activation_of(base()) +
                  ": all experts of a mixture have one",
              expert.line);
    }
    for (const auto& [key, entry] : input.catalog.entries) {
      if (!key.role.starts_with("mlp_") || !key.role.ends_with("_bias")) continue;
      problem(ErrorCode::kUnsupported,
              who + " ('" + input.label + "') has biases in its FFN (" + model::tensor_name(input.catalog.family, key) + "), for which a " +
                  title_of(assembly_.family) + " has no place",
              expert.line);
      break;
    }
  }

  void check_sparse_layers() {
    try {
      model::sparse_layer_fields(assembly_.family, assembly_.sparse_layers);
    } catch (const Error& error) {
      for (const Problem& each : error.problems()) problem(each.code, each.message, config_.line_of("moe_layers"));
    }
  }

  /// Routed experts are alike; shared ones may have any width that the family can say.
  void check_widths() {
    const ExpertSource& first = assembly_.experts.front();
    const std::uint64_t width = ffn_width(input_of(first));
    for (std::size_t i = 1; i < assembly_.experts.size(); ++i) {
      const ExpertSource& expert = assembly_.experts[i];
      if (expert.shard != 0 || ffn_width(input_of(expert)) == width) continue;
      problem(ErrorCode::kInvalidInput,
              "expert " + std::to_string(i) + " ('" + input_of(expert).label + "') has an FFN of " +
                  std::to_string(ffn_width(input_of(expert))) + " neurons, expert 0 ('" + input_of(first).label + "') of " +
                  std::to_string(width) + "; experts must be equally wide",
              expert.line);
    }
    if (assembly_.family.name != "deepseek" || assembly_.shared.empty()) return;
    std::uint64_t total = 0;
    for (const ExpertSource& expert : assembly_.shared) total += ffn_width(input_of(expert));
    const std::uint64_t unit = std::max<std::uint64_t>(1, width / first.num_shards);
    if (total % unit == 0) return;
    problem(ErrorCode::kInvalidInput,
            "the shared experts have " + std::to_string(total) + " neurons together, which is no multiple of the experts' " +
                std::to_string(unit) + "; DeepSeek MoE counts shared experts by that width",
            config_.line_of("shared_experts"));
  }

  void check_shards() {
    if (config_.recipe.kind != RecipeKind::kFineGrained) return;
    const std::uint32_t shards = config_.recipe.shards;
    const std::uint64_t width = ffn_width(input_of(assembly_.experts.front()));
    if (width % shards != 0) {
      problem(ErrorCode::kInvalidConfig,
              "an FFN of " + std::to_string(width) + " neurons cannot be cut into " + std::to_string(shards) + " equal shards",
              config_.line_of("shards"));
    }
    if (config_.experts_per_token % shards != 0) {
      plan_.warnings.push_back(
          "experts_per_token is " + std::to_string(config_.experts_per_token) + ", no multiple of the " + std::to_string(shards) +
          " shards: some shards of a copy are left out, so before training the mixture does not compute what the dense "
          "model does");
    }
    if (config_.recipe.published_scaling) {
      plan_.warnings.push_back(
          "published_scaling: gate, up and down are scaled by the cube root each, as the paper writes; SiLU is not homogeneous, so this is "
          "only near the dense model");
    }
  }

  void check_degenerate() {
    if (options_.allow_degenerate) return;
    // Recipes that start from copies are given equal ones.
    const bool copies_are_meant = config_.recipe.kind != RecipeKind::kNone && config_.recipe.kind != RecipeKind::kBtx;
    const bool all_same = !copies_are_meant && config_.experts.size() > 1 &&
                          std::all_of(config_.experts.begin(), config_.experts.end(), [&](const config::Expert& expert) {
                            return expert.source_model == config_.experts.front().source_model;
                          });
    // A random router is there to be trained, and equal experts with it are sparse upcycling: said, not refused.
    if (all_same && !config::needs_prompts(config_.gate_mode)) {
      plan_.warnings.push_back(
          "all experts are the same model; before training the mixture computes what that model does, at a higher price");
    } else if (all_same) {
      problem(ErrorCode::kInvalidConfig,
              "all experts are the same model, so the mixture computes what that model does at a higher price. If it is to be trained, use "
              "--allow-degenerate.",
              config_.line_of("experts"));
    }
    if (config_.identical_prompts) {
      problem(ErrorCode::kInvalidConfig,
              "all experts have the same prompts, so the router cannot tell them apart. If the mixture is to be trained, use "
              "--allow-degenerate.",
              config_.line_of("experts"));
    }
  }

  const Assembly& assembly_;
  const MoeConfig& config_;
  const PlanOptions& options_;
  ProblemList& problems_;
  MergePlan& plan_;
};

/// "%g" without locale: numbers as people write them.
std::string shown(double value) { return formats::Json(value).dump(); }

void describe_experts(const std::string& what, std::span<const ExpertSource> experts, const InputModels& inputs,
                      std::vector<std::string>& lines) {
  for (std::size_t first = 0; first < experts.size();) {
    const std::string text = description_of(experts[first], inputs[experts[first].model]);
    std::size_t end = first + 1;
    while (end < experts.size() && description_of(experts[end], inputs[experts[end].model]) == text) ++end;
    const std::string which =
        end == first + 1 ? what + " " + std::to_string(first) : what + "s " + std::to_string(first) + " to " + std::to_string(end - 1);
    lines.push_back(which + ": " + text);
    first = end;
  }
}

std::string list_of_layers(const std::vector<bool>& layers, bool value) {
  std::string text;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    if (layers[layer] == value) text += (text.empty() ? "" : ", ") + std::to_string(layer);
  }
  return text;
}

}  // namespace

std::string activation_of(const InputModel& input) {
  const formats::Json& config = input.checkpoint->config;
  const auto found = config.find("hidden_act");
  return found == config.end() || !found->is_string() ? "silu" : found->get<std::string>();
}

std::string description_of(const ExpertSource& expert, const InputModel& input) {
  std::string which;
  for (const std::uint32_t index : expert.indices) which += (which.empty() ? "expert " : ", ") + std::to_string(index);
  if (expert.indices.size() > 1) which += " (by layer)";
  std::string text = which.empty() ? "FFN of " + input.label : which + " of " + input.label;
  if (expert.num_shards > 1) text += ", in " + std::to_string(expert.num_shards) + " shards";
  if (expert.redrawn_ratio != 0) text += ", " + shown(expert.redrawn_ratio) + " of the neurons drawn anew";
  if (expert.noise_scale != 0) text += ", noise of " + shown(expert.noise_scale);
  const double down = expert.residual_scale * expert.down_scale * expert.matrix_scale;
  if (expert.matrix_scale != 1) text += ", gate and up times " + shown(expert.matrix_scale);
  if (down != 1) text += ", down times " + shown(down);
  return text;
}

int num_layers_of(const InputModel& input) {
  const auto found = input.catalog.num_layers.find("model");
  return found == input.catalog.num_layers.end() ? 0 : found->second;
}

std::uint64_t ffn_width(const InputModel& input) {
  const Shape gate = shape_of(input, {0, -1, "mlp_gate_proj"});
  return gate.size() == 2 ? gate[0] : 0;
}

void check_assembly(const Assembly& assembly, const PlanOptions& options, ProblemList& problems, MergePlan& plan) {
  Checker(assembly, options, problems, plan).run();
}

std::vector<std::string> composition_of(const Assembly& assembly) {
  std::vector<std::string> lines;
  const InputModel& base = assembly.inputs[0];
  if (assembly.config.recipe.kind == RecipeKind::kBtx) {
    lines.push_back("everything but the experts' FFN: " + assembly.config.recipe.attention_method + " over the experts");
  } else {
    lines.push_back("everything but the experts' FFN: " + base.label);
  }
  describe_experts("expert", assembly.experts, assembly.inputs, lines);
  describe_experts("shared expert", assembly.shared, assembly.inputs, lines);
  const bool has_prompts = config::needs_prompts(assembly.config.gate_mode);
  lines.push_back("router rows: " + config::name_of(assembly.config.gate_mode) +
                  (has_prompts ? ", from the experts' prompts and " + base.label : ", to be trained"));
  if (std::find(assembly.sparse_layers.begin(), assembly.sparse_layers.end(), false) != assembly.sparse_layers.end()) {
    lines.push_back("layers with experts: " + list_of_layers(assembly.sparse_layers, true));
    lines.push_back("layers with the plain FFN: " + list_of_layers(assembly.sparse_layers, false));
  }
  return lines;
}

}  // namespace moeweld::plan
