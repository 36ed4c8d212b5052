#pragma once
/// The models of one merge, read and seen through their families.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/config/merge_config.h"
#include "moeweld/formats/checkpoint.h"
#include "moeweld/model/catalog.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/planner.h"

namespace moeweld::plan {

struct InputModel {
  config::ModelReference reference;
  std::string label;         ///< as a user would type it
  std::string architecture;  ///< with the reference's override
  const formats::Checkpoint* checkpoint = nullptr;
  model::Catalog catalog;
  std::uint32_t first_file = 0;  ///< index of its first file in MergePlan::input_files
};

class InputModels {
 public:
  /// Where the configuration names a model.
  struct Places {
    std::string config_path;
    std::function<int(const config::ModelReference&)> line_of;
  };

  /// Reads every reference; what cannot be read is collected in `problems` and missing here. What belongs to no file, such as a model that
  /// is not there, is put down to its place.
  InputModels(const std::vector<config::ModelReference>& references, ModelSource& source, ProblemList& problems, const Places& places = {});

  std::vector<InputModel>& all() { return models_; }
  const std::vector<InputModel>& all() const { return models_; }
  const InputModel& operator[](std::size_t index) const { return models_[index]; }
  /// Throws Error(kInternal) for a reference that was not read.
  std::uint32_t index_of(const config::ModelReference& reference) const;

  /// Several architectures need --allow-crimes.
  void check_architectures(bool allow_crimes, ProblemList& problems) const;
  /// Fills plan.models, and plan.input_files with the files of the models that `is_read` names; each directory's files once.
  void list_files(const std::vector<bool>& is_read, MergePlan& plan);

 private:
  std::vector<InputModel> models_;
  std::map<config::ModelReference, std::uint32_t> by_reference_;
};

/// Last part of a path or name, for titles.
std::string short_name(const config::ModelReference& reference);

}  // namespace moeweld::plan
