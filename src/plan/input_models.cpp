#include "plan/input_models.h"

namespace moeweld::plan {

InputModels::InputModels(const std::vector<config::ModelReference>& references, ModelSource& source, ProblemList& problems,
                         const Places& places) {
  for (const config::ModelReference& reference : references) {
    if (by_reference_.contains(reference)) continue;
    ProblemList found;
    found.attempt([&] {
      InputModel input;
      input.reference = reference;
      input.label = reference.to_string();
      if (reference.lora) {
        throw Error(ErrorCode::kUnsupported,
                    "LoRA adapters (here '" + input.label + "') come with a later version; merge the adapter into its model first.");
      }
      input.checkpoint = &source.get(reference);
      input.architecture = reference.override_architecture.value_or(input.checkpoint->architecture());
      input.catalog = model::make_catalog(*input.checkpoint, input.architecture);
      by_reference_.emplace(reference, static_cast<std::uint32_t>(models_.size()));
      models_.push_back(std::move(input));
    });
    for (Problem problem : found.problems()) {
      if (problem.path.empty() && places.line_of) {
        problem.path = places.config_path;
        problem.line = places.line_of(reference);
      }
      problems.add(std::move(problem));
    }
  }
}

std::uint32_t InputModels::index_of(const config::ModelReference& reference) const {
  const auto found = by_reference_.find(reference);
  if (found == by_reference_.end()) throw Error(ErrorCode::kInternal, "The model '" + reference.to_string() + "' was not read.");
  return found->second;
}

void InputModels::check_architectures(bool allow_crimes, ProblemList& problems) const {
  if (allow_crimes || models_.empty()) return;
  const InputModel& first = models_.front();
  const auto named = [](const InputModel& input) {
    return "'" + input.label + "' is " + (input.architecture.empty() ? std::string("of an unnamed architecture") : input.architecture);
  };
  for (const InputModel& other : models_) {
    const bool same_family = first.catalog.family != nullptr && first.catalog.family == other.catalog.family;
    if (same_family || first.architecture == other.architecture) continue;
    problems.add(
        {ErrorCode::kInvalidInput,
         named(first) + " and " + named(other) +
             ". Models of different architectures are merged only under --allow-crimes, tensor by tensor as the base (else the first "
             "model) has them.",
         other.checkpoint->directory,
         0,
         {}});
  }
}

void InputModels::list_files(const std::vector<bool>& is_read, MergePlan& plan) {
  std::map<std::string, std::uint32_t> by_directory;
  for (std::size_t i = 0; i < models_.size(); ++i) {
    InputModel& input = models_[i];
    plan.models.push_back({input.label, input.checkpoint->directory});
    if (!is_read[i]) continue;
    const auto [known, is_new] = by_directory.emplace(input.checkpoint->directory, static_cast<std::uint32_t>(plan.input_files.size()));
    input.first_file = known->second;
    if (!is_new) continue;
    for (const formats::CheckpointFile& file : input.checkpoint->files) {
      plan.input_files.push_back({file.path, file.identity, static_cast<std::uint32_t>(i)});
    }
  }
}

std::string short_name(const config::ModelReference& reference) {
  std::string path = reference.path;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos || slash + 1 == path.size() ? path : path.substr(slash + 1);
}

}  // namespace moeweld::plan
