#include "plan/assembly_family.h"

#include <algorithm>
#include <string_view>

namespace moeweld::plan {

namespace {

using config::GateMode;
using config::MoeConfig;

/// What a family can be assembled from.
struct OutputRow {
  std::string_view family;
  std::string_view title;
  std::vector<std::string_view> sources;
  bool takes_shared = false;
  bool needs_shared = false;
  bool gated = false;  ///< its shared expert has a gate, made from prompts
};

const std::vector<OutputRow>& output_rows() {
  static const std::vector<OutputRow> rows = {
      {.family = "mixtral", .title = "Mixtral", .sources = {"llama", "mistral"}},
      {.family = "qwen3_moe", .title = "Qwen3-MoE", .sources = {"qwen3"}},
      {.family = "granitemoeshared",
       .title = "GraniteMoeShared",
       .sources = {"llama", "mistral"},
       .takes_shared = true,
       .needs_shared = true},
      {.family = "qwen2_moe",
       .title = "Qwen2-MoE",
       .sources = {"llama", "mistral", "qwen2"},
       .takes_shared = true,
       .needs_shared = true,
       .gated = true},
      {.family = "deepseek", .title = "DeepSeek MoE", .sources = {"llama", "mistral"}, .takes_shared = true},
  };
  return rows;
}

const OutputRow* find_output(std::string_view family) {
  for (const OutputRow& row : output_rows()) {
    if (row.family == family) return &row;
  }
  return nullptr;
}

bool has_prompts(const config::Expert& expert) { return !expert.positive_prompts.empty() || !expert.positive_token_ids.empty(); }

std::string_view family_name(const InputModel& input) {
  return input.catalog.family == nullptr ? std::string_view() : input.catalog.family->name;
}

class Chooser {
 public:
  Chooser(const MoeConfig& config, const InputModels& inputs, bool allow_crimes, const std::string& path, ProblemList& problems)
      : config_(config), inputs_(inputs), allow_crimes_(allow_crimes), path_(path), problems_(problems) {
    for (const config::Expert& expert : config.shared_experts) has_prompts(expert) ? ++with_prompts_ : ++without_prompts_;
  }

  const model::Family* choose() {
    if (!check_sources() || !check_shared()) return nullptr;
    const OutputRow* row = config_.architecture ? find_output(*config_.architecture) : by_sources();
    if (row == nullptr || !fits(*row)) return nullptr;
    for (const model::Family& family : model::families()) {
      if (family.name == row->family) return &family;
    }
    problem("architecture", std::string(row->title) + " comes with a later version", ErrorCode::kUnsupported);
    return nullptr;
  }

 private:
  void problem_at(int line, std::string message, ErrorCode code = ErrorCode::kInvalidConfig) {
    problems_.add(Problem{code, std::move(message), path_, line, {}});
  }
  void problem(const std::string& key, std::string message, ErrorCode code = ErrorCode::kInvalidConfig) {
    problem_at(config_.line_of(key), std::move(message), code);
  }

  std::string_view source() const { return family_name(inputs_[0]); }

  bool check_sources() {
    bool good = true;
    const InputModel& base = inputs_[0];
    for (const InputModel& input : inputs_.all()) {
      const std::string_view family = family_name(input);
      const std::string is = "'" + input.label + "' is " + (input.architecture.empty() ? "of an unnamed architecture" : input.architecture);
      if (family != "llama" && family != "mistral" && family != "qwen2" && family != "qwen3") {
        problem_at(config_.line_of_model(input.reference),
                   is + "; a mixture is assembled from dense Llama, Mistral, Qwen2 or Qwen3 models");
        good = false;
      } else if (family != family_name(base) && !(allow_crimes_ && !family.starts_with("qwen") && !family_name(base).starts_with("qwen"))) {
        problem_at(config_.line_of_model(input.reference),
                   "'" + base.label + "' is " + base.architecture + " and " + is +
                       "; a mixture is made of models of one architecture (Llama and Mistral mix under --allow-crimes)");
        good = false;
      }
    }
    return good;
  }

  bool check_shared() {
    if (with_prompts_ == 0 || without_prompts_ == 0) return true;
    for (const config::Expert& expert : config_.shared_experts) {
      if (has_prompts(expert)) continue;
      problems_.add(
          Problem{ErrorCode::kInvalidConfig,
                  "this shared expert has no prompts, and others have: a gated shared expert is made from the prompts of all; give "
                  "prompts to all of them or to none",
                  path_,
                  expert.line,
                  {}});
    }
    return false;
  }

  const OutputRow* by_sources() {
    const bool is_llama = source() == "llama" || source() == "mistral";
    const bool has_shared = with_prompts_ + without_prompts_ != 0;
    if (!has_shared && is_llama) return find_output("mixtral");
    if (source() == "qwen3") return find_output("qwen3_moe");
    if (is_llama && without_prompts_ != 0) return find_output("granitemoeshared");
    return find_output("qwen2_moe");
  }

  bool fits(const OutputRow& row) {
    const std::string title(row.title);
    const std::string key = config_.architecture ? "architecture" : config_.shared_experts.empty() ? "experts" : "shared_experts";
    bool good = true;
    const auto refuse = [&](const std::string& where, std::string message) {
      problem(where, std::move(message));
      good = false;
    };
    if (std::find(row.sources.begin(), row.sources.end(), source()) == row.sources.end()) {
      std::string sources;
      for (const std::string_view name : row.sources) sources += (sources.empty() ? "" : " or ") + std::string(name);
      refuse(key, "a " + title + " is assembled from " + sources + " models, and '" + inputs_[0].label + "' is " + std::string(source()));
    }
    const std::size_t num_shared = with_prompts_ + without_prompts_;
    if (num_shared != 0 && !row.takes_shared) refuse("shared_experts", "a " + title + " has no shared experts; leave out 'shared_experts'");
    if (num_shared == 0 && row.needs_shared) {
      refuse(key, "a " + title + " has a shared expert in every layer, and there are no 'shared_experts'" +
                      (source() == "qwen2" ? "; Qwen2 models become no other family" : ""));
    }
    if (with_prompts_ != 0 && row.takes_shared && !row.gated)
      refuse("shared_experts", "the shared experts of a " + title + " have no gate, so their prompts have no place; Qwen2-MoE has one");
    if (without_prompts_ != 0 && row.gated && config_.gate_mode != GateMode::kRandom) {
      refuse("shared_experts",
             "the shared expert of a " + title +
                 " has a gate, which is made from the prompts of the 'shared_experts', and they have none; give prompts, or "
                 "gate_mode: random");
    }
    return good;
  }

  const MoeConfig& config_;
  const InputModels& inputs_;
  const bool allow_crimes_;
  const std::string& path_;
  ProblemList& problems_;
  std::size_t with_prompts_ = 0;
  std::size_t without_prompts_ = 0;
};

}  // namespace

const model::Family* choose_output_family(const MoeConfig& config, const InputModels& inputs, bool allow_crimes,
                                          const std::string& config_path, ProblemList& problems) {
  return Chooser(config, inputs, allow_crimes, config_path, problems).choose();
}

bool has_shared_gate(const model::Family& family) {
  const OutputRow* row = find_output(family.name);
  return row != nullptr && row->gated;
}

std::string title_of(const model::Family& family) {
  const OutputRow* row = find_output(family.name);
  return std::string(row == nullptr ? family.name : row->title);
}

}  // namespace moeweld::plan
