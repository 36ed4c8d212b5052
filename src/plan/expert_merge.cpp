#include "plan/expert_merge.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "moeweld/base/random.h"
#include "moeweld/base/text.h"
#include "plan/source_views.h"

namespace moeweld::plan {

namespace {

void usage(ProblemList& problems, std::string message) { problems.add({ErrorCode::kUsage, std::move(message), {}, 0, {}}); }

const std::vector<double>* given_value(const Extraction& extraction, std::string_view name) {
  for (const auto& [own, values] : extraction.parameters) {
    if (own == name) return &values;
  }
  return nullptr;
}

bool has_row(const std::vector<merge::ParameterRow>& rows, std::string_view name) {
  return std::any_of(rows.begin(), rows.end(), [&](const merge::ParameterRow& row) { return row.name == name; });
}

double default_of(const merge::ParameterRow& row, std::string_view method, ProblemList& problems) {
  if (row.default_value) return *row.default_value;
  if (!row.optional) {
    usage(problems, "the method '" + std::string(method) + "' needs a value for '" + std::string(row.name) + "': --parameter " +
                        std::string(row.name) + "=VALUE");
  }
  return std::numeric_limits<double>::quiet_NaN();
}

Extraction as_merge(const Extraction& extraction) {
  if (extraction.what == Extraction::What::kMerge) return extraction;
  Extraction average = extraction;
  average.method = "linear";
  average.parameters = {{"weight", extraction.weights.empty() ? std::vector<double>{1.0} : extraction.weights}};
  return average;
}

}  // namespace

ExpertMerge::ExpertMerge(const Extraction& extraction, std::size_t num_experts, ProblemList& problems) : num_experts_(num_experts) {
  const Extraction merge = as_merge(extraction);
  const merge::MethodRow* method = merge::find_method(merge.method);
  if (method == nullptr || method->internal) {
    const auto announced = merge::announced_methods();
    const bool comes_later = std::find(announced.begin(), announced.end(), merge.method) != announced.end();
    usage(problems, comes_later ? "the method '" + printable(merge.method, 60) + "' comes with a later version"
                                : "there is no merge method '" + printable(merge.method, 60) + "'; moeweld methods lists them");
    return;
  }
  if (num_experts < method->inputs.min_inputs || num_experts > method->inputs.max_inputs) {
    usage(problems, "the method '" + merge.method + "' cannot merge " + std::to_string(num_experts) + " experts: it takes " +
                        (method->inputs.max_inputs == method->inputs.min_inputs ? "exactly " : "at least ") +
                        std::to_string(method->inputs.min_inputs));
  }
  if (merge.base && (*merge.base < 0 || static_cast<std::size_t>(*merge.base) >= num_experts)) {
    usage(problems,
          "--base: there is no expert " + std::to_string(*merge.base) + "; there are experts 0 to " + std::to_string(num_experts - 1));
  }
  if (merge.base && method->inputs.base == merge::Base::kIgnored) {
    usage(problems, "the method '" + merge.method + "' has no base: --base has no meaning");
  }
  if (!merge.base && method->inputs.base == merge::Base::kRequired) {
    usage(problems, "the method '" + merge.method + "' needs a base: --base N takes expert N of each layer for it");
  }
  base_ = merge.base.value_or(-1);
  method_ = method;
  read_parameters(merge, problems);
}

void ExpertMerge::read_parameters(const Extraction& extraction, ProblemList& problems) {
  for (const auto& [name, values] : extraction.parameters) {
    const bool is_shared = has_row(method_->shared_parameters, name);
    if (!is_shared && !has_row(method_->model_parameters, name)) {
      usage(problems, "the method '" + extraction.method + "' has no parameter '" + printable(name, 60) + "'; moeweld methods lists them");
    } else if (values.size() != 1 && (is_shared || values.size() != num_experts_)) {
      usage(problems, "'" + name + "' has " + std::to_string(values.size()) + " values, but " +
                          (is_shared ? "takes one" : "takes one, or one for each of the " + std::to_string(num_experts_) + " experts"));
    }
    for (const double value : values) {
      if (!std::isfinite(value)) usage(problems, "'" + name + "' must be finite");
    }
  }
  if (!problems.empty()) return;
  for (const merge::ParameterRow& row : method_->shared_parameters) {
    const std::vector<double>* given = given_value(extraction, row.name);
    shared_.push_back(given != nullptr ? given->front() : default_of(row, method_->name, problems));
  }
  of_experts_.resize(num_experts_);
  for (const merge::ParameterRow& row : method_->model_parameters) {
    const std::vector<double>* given = given_value(extraction, row.name);
    const double other = given == nullptr ? default_of(row, method_->name, problems) : 0;
    for (std::size_t expert = 0; expert < num_experts_; ++expert) {
      const bool has_none = static_cast<int>(expert) == base_ && !row.base_too;
      of_experts_[expert].push_back(has_none           ? std::numeric_limits<double>::quiet_NaN()
                                    : given == nullptr ? other
                                                       : (*given)[given->size() == 1 ? 0 : expert]);
    }
  }
}

void ExpertMerge::fill(std::uint64_t seed, Operation& operation, ProblemList& problems) const {
  operation.kind = Operation::Kind::kMerge;
  operation.method = static_cast<std::uint32_t>(method_ - merge::method_table().data());
  merge::Task& task = operation.task;
  task.base_index = base_;
  task.parameters = shared_;
  task.tensor_key = stream_id(operation.name);
  task.seed = seed;
  task.inputs.clear();
  task.output_dtype = usual_dtype(operation.sources.front());
  for (std::size_t expert = 0; expert < num_experts_; ++expert) {
    const DType dtype = operation.sources[expert].dtype;
    task.output_dtype = promote(task.output_dtype, usual_dtype(operation.sources[expert]));
    task.inputs.push_back({dtype, of_experts_[expert]});
  }
  if (method_->check == nullptr || !problems.empty()) return;  // the same for all matrices
  for (const std::string& message : method_->check(task)) {
    problems.add({ErrorCode::kUsage, "cannot be merged with '" + std::string(method_->name) + "': " + message, {}, 0, operation.name});
  }
}

}  // namespace moeweld::plan
