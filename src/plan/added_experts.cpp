#include "plan/added_experts.h"

#include <algorithm>

#include "plan/assembly_checks.h"
#include "plan/mixture_tensors.h"

namespace moeweld::plan {

namespace {

class AdditionChecker {
 public:
  AdditionChecker(const config::ConfigFile& file, const InputModels& inputs, ProblemList& problems)
      : file_(file), inputs_(inputs), problems_(problems) {}

  void check(const ExpertSource& expert, std::size_t number) {
    expert_ = &expert;
    who_ = "expert " + std::to_string(number) + " ('" + input().label + "')";
    if (input().catalog.family == nullptr) {
      problem(ErrorCode::kUnsupported, "is " + architecture_of(input()) + ", of no known family, so where its FFN is is not known");
      return;
    }
    if (is_mixture(input()) == expert.indices.empty()) {
      problem(ErrorCode::kInvalidConfig, is_mixture(input()) ? "is a mixture of " + std::to_string(input().catalog.num_experts) +
                                                                   " experts; say which one with 'expert: N', or one for each layer"
                                                             : "is a dense model, so there is no 'expert' to choose; leave it out");
      return;
    }
    if (num_layers_of(input()) != num_layers_of(base())) {
      problem(ErrorCode::kInvalidInput, "has " + std::to_string(num_layers_of(input())) + " layers, and '" + base().label + "' has " +
                                            std::to_string(num_layers_of(base())));
      return;
    }
    if (!check_indices()) return;
    check_activation();
    check_matrices();
  }

 private:
  const InputModel& base() const { return inputs_[0]; }
  const InputModel& input() const { return inputs_[expert_->model]; }
  static bool is_mixture(const InputModel& input) { return input.catalog.num_experts > 0; }
  static std::string architecture_of(const InputModel& input) {
    return input.architecture.empty() ? "of an unnamed architecture" : input.architecture;
  }

  void problem(ErrorCode code, const std::string& what) { problems_.add(Problem{code, who_ + " " + what, file_.path, expert_->line, {}}); }

  bool check_indices() {
    const auto layers = base().catalog.sparse_layers.size();
    if (expert_->indices.size() > 1 && expert_->indices.size() != layers) {
      problem(ErrorCode::kInvalidConfig, "names " + std::to_string(expert_->indices.size()) +
                                             " experts; name one, or one for each of the " + std::to_string(layers) + " layers");
      return false;
    }
    for (const std::uint32_t index : expert_->indices) {
      if (index < static_cast<std::uint32_t>(input().catalog.num_experts)) continue;
      problem(ErrorCode::kInvalidConfig,
              "has experts 0 to " + std::to_string(input().catalog.num_experts - 1) + ", and there is no expert " + std::to_string(index));
      return false;
    }
    return true;
  }

  void check_activation() {
    if (activation_of(input()) == activation_of(base())) return;
    problem(ErrorCode::kUnsupported, "has hidden_act " + activation_of(input()) + ", '" + base().label + "' " + activation_of(base()) +
                                         ": all experts of a mixture have one");
  }

  /// In every layer with experts the source has an FFN of the experts' shape, without biases.
  void check_matrices() {
    for (std::size_t layer = 0; layer < base().catalog.sparse_layers.size(); ++layer) {
      if (!base().catalog.sparse_layers[layer]) continue;
      for (const FfnMatrix matrix : {FfnMatrix::kGate, FfnMatrix::kUp, FfnMatrix::kDown}) {
        const model::TensorKey key = source_key(*expert_, matrix, static_cast<int>(layer));
        const auto found = input().catalog.entries.find(key);
        if (found == input().catalog.entries.end()) {
          const bool is_mtp = static_cast<int>(layer) >= num_layers_of(base());
          problem(ErrorCode::kInvalidInput, "has nothing that could be an expert in layer " + std::to_string(layer) +
                                                (is_mtp ? ", a layer of multi-token prediction of '" : ", where there are experts in '") +
                                                base().label + "'");
          return;
        }
        const Shape& own = found->second.shape;
        const Shape& wanted =
            base().catalog.entries.at({static_cast<int>(layer), 0, "expert_" + std::string(dense_role(matrix).substr(4))}).shape;
        if (own == wanted) continue;
        const bool hidden = matrix == FfnMatrix::kDown ? own.at(0) != wanted.at(0) : own.at(1) != wanted.at(1);
        const std::size_t axis = (matrix == FfnMatrix::kDown) == hidden ? 0 : 1;
        problem(ErrorCode::kInvalidInput, std::string("has ") + (hidden ? "a hidden size of " : "an FFN of ") +
                                              std::to_string(own.at(axis)) + (hidden ? ", '" : " neurons, the experts of '") +
                                              base().label + (hidden ? "' of " : "' have ") + std::to_string(wanted.at(axis)));
        return;
      }
    }
    for (const auto& [key, entry] : input().catalog.entries) {
      if (!key.role.starts_with("mlp_") || !key.role.ends_with("_bias")) continue;
      problem(ErrorCode::kUnsupported, "has biases in its FFN (" + model::tensor_name(input().catalog.family, key) + "), for which '" +
                                           base().label + "' has no place");
      return;
    }
  }

  const config::ConfigFile& file_;
  const InputModels& inputs_;
  ProblemList& problems_;
  const ExpertSource* expert_ = nullptr;
  std::string who_;
};

}  // namespace

void check_added_experts(const config::ConfigFile& file, const config::MoeConfig& config, const InputModels& inputs,
                         std::span<const ExpertSource> experts, const PlanOptions& options, ProblemList& problems, MergePlan& plan) {
  AdditionChecker checker(file, inputs, problems);
  for (std::size_t i = 0; i < experts.size(); ++i) checker.check(experts[i], i);
  const InputModel& base = inputs[0];
  const bool from_prompts = config::needs_prompts(config.gate_mode);
  if (base.catalog.num_mtp_layers > 0 && from_prompts && config.gate_mode != config::GateMode::kCheapEmbed) {
    problems.add(Problem{ErrorCode::kUnsupported,
                         "'" + base.label +
                             "' has layers of multi-token prediction, whose routers see what no prompt shows; use gate_mode "
                             "cheap_embed, random, uniform_random or orthogonal",
                         file.path,
                         config.line_of("gate_mode"),
                         {}});
  }
  const bool all_same = experts.size() > 1 && std::all_of(experts.begin(), experts.end(), [&](const ExpertSource& expert) {
                          return expert.model == experts.front().model && expert.indices == experts.front().indices;
                        });
  if (all_same && from_prompts && !options.allow_degenerate) {
    problems.add(Problem{ErrorCode::kInvalidConfig,
                         "all new experts are the same. If the mixture is to be trained, use --allow-degenerate.",
                         file.path,
                         config.line_of("experts"),
                         {}});
  } else if (all_same) {
    plan.warnings.push_back("all new experts are the same");
  }
  if (config.identical_prompts && !options.allow_degenerate) {
    problems.add(
        Problem{ErrorCode::kInvalidConfig,
                "all new experts have the same prompts, so the router cannot tell them apart. If the mixture is to be trained, use "
                "--allow-degenerate.",
                file.path,
                config.line_of("experts"),
                {}});
  }
}

}  // namespace moeweld::plan
