#pragma once
/// `models:`, `slices:` and `modules:` of a config as one thing: modules made of slices, slices made of sources.

#include <cstdint>
#include <string>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"
#include "moeweld/merge/method.h"
#include "plan/input_models.h"

namespace moeweld::plan {

struct SliceSource {
  std::uint32_t model = 0;  ///< index into InputModels
  int first_layer = 0;
  const config::ParameterMap* parameters = nullptr;  ///< null: none of its own
  int line = 0;
};

struct Slice {
  std::vector<SliceSource> sources;
  int donor = 0;             ///< index into sources: whose tensors the output has (the base, else the first)
  int base = -1;             ///< index into sources: the base of the method; -1 where it has none or ignores it
  bool whole_model = false;  ///< from `models:`: all layers, whatever their prefix
  int num_layers = 0;        ///< unless whole_model
  int first_output_layer = 0;
  const config::ParameterMap* parameters = nullptr;
  int line = 0;
};

struct Module {
  std::string name;
  std::vector<Slice> slices;
  const config::ParameterMap* parameters = nullptr;
  int line = 0;
};

/// What the config alone can tell: number of inputs, the base among them, no model twice, equally long layer ranges.
void check_slices(const config::MergeConfig& config, const merge::MethodRow& method, const std::string& config_path, ProblemList& problems);

/// The slices of a config that check_slices found well. The result points into `config`.
std::vector<Module> make_modules(const config::MergeConfig& config, const merge::MethodRow& method, const InputModels& inputs);

}  // namespace moeweld::plan
