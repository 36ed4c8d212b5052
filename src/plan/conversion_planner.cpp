#include <limits>

#include "moeweld/plan/planner.h"
#include "plan/auxiliary_files.h"
#include "plan/input_models.h"
#include "plan/output_layout.h"

namespace moeweld::plan {

namespace {

constexpr std::uint64_t kLargestConfigBytes = 100'000'000;

OutputTensor copy_of(const formats::CheckpointTensor& tensor) {
  Operation operation;
  operation.kind = Operation::Kind::kCopy;
  operation.name = tensor.name;
  operation.task.shape = tensor.shape;
  operation.task.output_dtype = tensor.dtype;
  operation.task.inputs = {{tensor.dtype, {std::numeric_limits<double>::quiet_NaN()}}};
  SourceView source;
  source.dtype = tensor.dtype;
  source.file = tensor.file;
  source.begin = tensor.begin;
  source.num_elements = num_elements(tensor.shape);
  operation.sources = {std::move(source)};
  OutputTensor result{tensor.name, tensor.dtype, tensor.shape, {}};
  result.parts.push_back(std::move(operation));
  return result;
}

}  // namespace

MergePlan make_conversion_plan(const config::ModelReference& reference, ModelSource& models, const PlanOptions& options) {
  const formats::Checkpoint& checkpoint = models.get(reference);
  MergePlan plan;
  plan.models.push_back({reference.to_string(), checkpoint.directory});
  for (const formats::CheckpointFile& file : checkpoint.files) plan.input_files.push_back({file.path, file.identity, 0});
  std::vector<OutputTensor> tensors;
  tensors.reserve(checkpoint.tensors.size());
  for (const formats::CheckpointTensor& tensor : checkpoint.tensors) tensors.push_back(copy_of(tensor));
  lay_out(std::move(tensors), options, plan);
  plan.title = short_name(reference) + (options.format == OutputFormat::kHdf5 ? " as HDF5" : " as safetensors");
  plan.config_text = "# moeweld convert " + reference.to_string() + "\n";
  plan.seed = options.seed;
  plan.base_models = {reference.to_string()};
  plan.auxiliary_files = auxiliary_files(checkpoint, checkpoint, options);
  const std::string config = checkpoint.directory + "/config.json";
  if (models.storage().exists(config)) {
    plan.auxiliary_files.push_back({.action = AuxiliaryFile::Action::kWrite,
                                    .name = "config.json",
                                    .content = models.storage().read_text(config, kLargestConfigBytes),
                                    .source = {},
                                    .reason = {}});
  }
  return plan;
}

}  // namespace moeweld::plan
