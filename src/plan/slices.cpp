#include "plan/slices.h"

#include <algorithm>
#include <optional>

namespace moeweld::plan {
namespace {

using config::MergeConfig;
using config::ModelReference;
using config::OutputModule;
using config::OutputSlice;

/// One group of inputs with its base, before models are read.
struct Group {
  std::vector<ModelReference> models;
  std::vector<int> lines;
  std::optional<ModelReference> base;
  bool base_may_be_absent = false;  ///< `models:`: the base is appended
  int line = 0;
};

std::string count_text(std::size_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

std::string expectation(const merge::InputRule& rule) {
  if (rule.min_inputs == rule.max_inputs) return "exactly " + count_text(rule.min_inputs, "model");
  if (rule.max_inputs == SIZE_MAX) return "at least " + count_text(rule.min_inputs, "model");
  return std::to_string(rule.min_inputs) + " to " + count_text(rule.max_inputs, "model");
}

void check_group(const Group& group, const MergeConfig& config, const merge::MethodRow& method, const std::string& path,
                 ProblemList& problems) {
  for (std::size_t i = 0; i < group.models.size(); ++i) {
    const auto first = std::find(group.models.begin(), group.models.end(), group.models[i]);
    if (first != group.models.begin() + static_cast<std::ptrdiff_t>(i)) {
      problems.add({ErrorCode::kInvalidConfig,
                    "The model '" + group.models[i].to_string() + "' is there twice (first in line " +
                        std::to_string(group.lines[static_cast<std::size_t>(first - group.models.begin())]) +
                        "). Name it once, with the sum of its weights.",
                    path,
                    group.lines[i],
                    {}});
    }
  }
  const bool has_base = group.base && std::find(group.models.begin(), group.models.end(), *group.base) != group.models.end();
  const std::size_t num_inputs = group.models.size() + (group.base && !has_base && group.base_may_be_absent ? 1 : 0);
  if (num_inputs < method.inputs.min_inputs || num_inputs > method.inputs.max_inputs) {
    const bool appended = num_inputs != group.models.size();
    problems.add({ErrorCode::kInvalidConfig,
                  "The method '" + std::string(method.name) + "' merges " + expectation(method.inputs) + "; here are " +
                      count_text(num_inputs, "model") +
                      (appended ? ", the base_model counted, which is added to models: where it is not listed." : "."),
                  path,
                  group.line,
                  {}});
  }
  if (method.inputs.base == merge::Base::kIgnored) return;
  if (!group.base && method.inputs.base == merge::Base::kRequired) {
    problems.add({ErrorCode::kInvalidConfig,
                  "The method '" + std::string(method.name) + "' needs a base_model, and none is given.",
                  path,
                  config.merge_method_line,
                  {}});
  } else if (group.base && !has_base && !group.base_may_be_absent) {
    problems.add({ErrorCode::kInvalidConfig,
                  "The base_model '" + group.base->to_string() + "' is not among the sources of this slice, and the method '" +
                      std::string(method.name) + "' needs it there. Add it with its own layer_range.",
                  path,
                  group.line,
                  {}});
  }
}

Group group_of(const OutputModule& module, const MergeConfig& config) {
  Group group;
  for (const config::InputModel& input : module.models) {
    group.models.push_back(input.model);
    group.lines.push_back(input.line);
  }
  group.base = config.base_model;
  group.base_may_be_absent = true;
  group.line = module.line != 0 ? module.line : config.merge_method_line;
  return group;
}

Group group_of(const OutputSlice& slice, const MergeConfig& config) {
  Group group;
  for (const config::InputSlice& input : slice.sources) {
    group.models.push_back(input.model);
    group.lines.push_back(input.line);
  }
  group.base = slice.base_model ? slice.base_model : config.base_model;
  group.line = slice.line;
  return group;
}

void check_layer_ranges(const OutputSlice& slice, const std::string& path, ProblemList& problems) {
  if (slice.sources.empty()) return;
  const auto length = [](const config::InputSlice& source) { return std::int64_t{source.end_layer} - std::int64_t{source.first_layer}; };
  for (const config::InputSlice& source : slice.sources) {
    if (length(source) <= 0) {
      problems.add({ErrorCode::kInvalidConfig,
                    "layer_range [" + std::to_string(source.first_layer) + ", " + std::to_string(source.end_layer) +
                        "] holds no layer. The second number is one past the last layer.",
                    path,
                    source.line,
                    {}});
    } else if (length(source) != length(slice.sources.front())) {
      problems.add({ErrorCode::kInvalidConfig,
                    "All sources of a slice must have the same number of layers: '" + slice.sources.front().model.to_string() + "' has " +
                        std::to_string(length(slice.sources.front())) + " here and '" + source.model.to_string() + "' " +
                        std::to_string(length(source)) + ".",
                    path,
                    source.line,
                    {}});
    }
  }
}

void finish(Slice& slice, const std::optional<ModelReference>& base, const merge::MethodRow& method, const InputModels& inputs) {
  if (!base) return;
  for (std::size_t i = 0; i < slice.sources.size(); ++i) {
    if (inputs[slice.sources[i].model].reference != *base) continue;
    slice.donor = static_cast<int>(i);
    if (method.inputs.base != merge::Base::kIgnored) slice.base = static_cast<int>(i);
  }
}

}  // namespace

void check_slices(const MergeConfig& config, const merge::MethodRow& method, const std::string& config_path, ProblemList& problems) {
  for (const OutputModule& module : config.modules) {
    if (!module.models.empty()) check_group(group_of(module, config), config, method, config_path, problems);
    for (const OutputSlice& slice : module.slices) {
      check_group(group_of(slice, config), config, method, config_path, problems);
      check_layer_ranges(slice, config_path, problems);
    }
    if (module.models.empty() && module.slices.empty()) {
      problems.add({ErrorCode::kInvalidConfig, "There is nothing to merge: neither models nor slices.", config_path, module.line, {}});
    }
  }
}

std::vector<Module> make_modules(const MergeConfig& config, const merge::MethodRow& method, const InputModels& inputs) {
  std::vector<Module> modules;
  for (const OutputModule& written : config.modules) {
    Module module;
    module.name = config.is_whole_model ? "default" : written.name;
    module.parameters = &written.parameters;
    module.line = written.line;
    if (!written.models.empty()) {
      Slice slice;
      slice.whole_model = true;
      slice.line = written.line;
      bool has_base = false;
      for (const config::InputModel& input : written.models) {
        has_base = has_base || (config.base_model && input.model == *config.base_model);
        slice.sources.push_back({inputs.index_of(input.model), 0, &input.parameters, input.line});
      }
      if (config.base_model && !has_base)
        slice.sources.push_back({inputs.index_of(*config.base_model), 0, nullptr, config.base_model_line});
      finish(slice, config.base_model, method, inputs);
      module.slices.push_back(std::move(slice));
    }
    int num_layers = 0;
    for (const OutputSlice& written_slice : written.slices) {
      Slice slice;
      slice.line = written_slice.line;
      slice.parameters = &written_slice.parameters;
      slice.first_output_layer = num_layers;
      for (const config::InputSlice& input : written_slice.sources) {
        slice.sources.push_back({inputs.index_of(input.model), static_cast<int>(input.first_layer), &input.parameters, input.line});
        slice.num_layers = static_cast<int>(input.end_layer - input.first_layer);
      }
      num_layers += slice.num_layers;
      finish(slice, written_slice.base_model ? written_slice.base_model : config.base_model, method, inputs);
      module.slices.push_back(std::move(slice));
    }
    modules.push_back(std::move(module));
  }
  return modules;
}

}  // namespace moeweld::plan
