/// Any text either is a configuration or is refused with Error, and what is accepted keeps its promises.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"

namespace {

using namespace moeweld;
using namespace moeweld::config;

const std::vector<MethodInfo> kMethods = {
    {.name = "linear", .parameters = {{"weight", true}, {"normalize", false}}},
    {.name = "slerp", .parameters = {{"t", false}}},
    {.name = "ties", .parameters = {{"weight", true}}, .implemented = false},
};

void require(bool holds) {
  if (!holds) std::abort();
}

void check(const ParameterMap& parameters) {
  for (const NamedSetting& named : parameters) {
    require(&named.setting == find(parameters, named.name));
    for (const double t : {0.0, 0.3, 1.0}) {
      const auto value = evaluate(named.setting, "model.layers.0.mlp.up_proj.weight", t);
      if (!value) continue;
      const auto number = as_number(*value);
      require(!number || std::isfinite(*number));
    }
  }
}

void check(const MergeConfig& config) {
  require(!config.merge_method.empty() && !config.modules.empty());
  check(config.parameters);
  for (const OutputModule& module : config.modules) {
    require(module.models.empty() != module.slices.empty());
    check(module.parameters);
    for (const InputModel& input : module.models) check(input.parameters);
    for (const OutputSlice& slice : module.slices) {
      require(!slice.sources.empty());
      check(slice.parameters);
      for (const InputSlice& source : slice.sources) {
        require(source.first_layer < source.end_layer);
        check(source.parameters);
      }
    }
  }
  for (const ModelReference& model : config.referenced_models()) require(!model.path.empty() && !model.lora);
}

void check(const MoeConfig& config) {
  require(!config.base_model.path.empty() && config.num_experts() >= 1 && config.experts_per_token >= 1);
  // Experts that are listed may be added to others, so that only planning knows how many there are.
  require(!config.experts.empty() || config.experts_per_token <= config.num_experts());
  require(config.recipe.ratio >= 0 && config.recipe.ratio <= 1);
  for (const auto* experts : {&config.experts, &config.shared_experts}) {
    for (const Expert& expert : *experts) require(!expert.source_model.path.empty());
  }
  check(config.recipe.attention_parameters);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
  if (size_bytes == 0) return 0;
  // The first byte chooses the options, the rest is the file.
  const std::string text(reinterpret_cast<const char*>(data) + 1, size_bytes - 1);
  try {
    const ConfigFile file = parse_config(text, "fuzz.yaml", kMethods, {.lenient = data[0] == '!'});
    std::visit([](const auto& job) { check(job); }, file.job);
  } catch (const Error& error) {
    require(!error.problems().empty() && error.code() != ErrorCode::kInternal);
  }
  return 0;
}
