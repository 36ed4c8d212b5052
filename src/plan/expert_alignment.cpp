#include "plan/expert_alignment.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <unordered_map>

#include "moeweld/model/routing_groups.h"
#include "moeweld/plan/alignment.h"
#include "plan/grouped_problems.h"

namespace moeweld::plan {

namespace {

using Kind = SourceView::Kind;

SourceView permuted(SourceView view, Kind kind, std::uint64_t columns, std::uint64_t first) {
  view.columns = columns;
  SourceView result;
  result.kind = kind;
  result.dtype = view.dtype;
  result.num_elements = view.num_elements;
  result.columns = columns;
  result.first = first;
  result.children.push_back(std::move(view));
  return result;
}

std::vector<std::uint32_t>* expert_operations(Alignment& alignment, std::string_view role) {
  if (role == "expert_gate_proj") return &alignment.gate;
  if (role == "expert_up_proj") return &alignment.up;
  if (role == "expert_down_proj") return &alignment.down;
  return nullptr;
}

class Aligner {
 public:
  Aligner(const config::AlignExperts& align, const Matching& matching, const InputModels& inputs, MergePlan& plan, AlignedLayers layers)
      : align_(align), matching_(matching), inputs_(inputs), plan_(plan), also_single_(layers == AlignedLayers::kAll) {}

  void run(const std::string& config_path, ProblemList& problems) {
    std::unordered_map<std::string_view, std::uint32_t> operations;
    for (std::uint32_t i = 0; i < plan_.operations.size(); ++i) operations.emplace(plan_.operations[i].name, i);
    bool has_experts = false;
    for (const MatchedTensor& tensor : matching_.tensors) {
      if (tensor.key.role != "router" && tensor.key.role != "router_correction_bias" && tensor.key.expert < 0) continue;
      has_experts = true;
      if (tensor.inputs.size() > 1 || also_single_) add(tensor, operations.at(tensor.name));
    }
    if (!has_experts) {
      problems.add({ErrorCode::kInvalidConfig,
                    std::string(also_single_ ? "Experts are to be compared" : "align_experts puts the experts of mixtures in order") +
                        ", and these models have none (of a family that is known).",
                    config_path,
                    align_.line,
                    {}});
      return;
    }
    for (auto& [layer, open] : layers_) {
      if (is_known_) problems.attempt([&] { finish(std::move(open.alignment), *open.slice); });
    }
    groups_.report(problems);
    if (layers_.empty()) plan_.notes.push_back("align_experts has no effect: no layer with experts has several models");
  }

 private:
  struct Open {
    const Slice* slice = nullptr;
    Alignment alignment;
  };

  void add(const MatchedTensor& tensor, std::uint32_t operation) {
    Open& open = layers_[tensor.key.layer];
    open.slice = tensor.slice;
    Alignment& alignment = open.alignment;
    alignment.layer = tensor.key.layer;
    if (tensor.key.role == "router") {
      alignment.router = operation;
    } else if (tensor.key.role == "router_correction_bias") {
      alignment.correction_bias = operation;
    } else if (std::vector<std::uint32_t>* experts = expert_operations(alignment, tensor.key.role)) {
      experts->resize(std::max<std::size_t>(experts->size(), static_cast<std::size_t>(tensor.key.expert) + 1), kNoOperation);
      (*experts)[static_cast<std::size_t>(tensor.key.expert)] = operation;
    } else {
      is_known_ = false;
      groups_.add("role\n" + tensor.key.role,
                  {ErrorCode::kUnsupported, "belongs to an expert, but align_experts does not know how it goes with the expert's neurons.",
                   inputs_[tensor.slice->sources[0].model].checkpoint->directory, 0, tensor.name});
    }
  }

  void finish(Alignment alignment, const Slice& slice) {
    const InputModel& donor = inputs_[slice.sources[static_cast<std::size_t>(slice.donor)].model];
    if (alignment.router == kNoOperation || alignment.gate.empty() || alignment.up.size() != alignment.gate.size() ||
        alignment.down.size() != alignment.gate.size()) {
      throw Error(ErrorCode::kUnsupported,
                  "layer " + std::to_string(alignment.layer) +
                      " has experts without a router or without one of gate, up and down: " + "align_experts knows no such family.",
                  donor.checkpoint->directory);
    }
    alignment.match = align_.match;
    alignment.neurons = align_.neurons;
    alignment.num_experts = static_cast<std::uint32_t>(alignment.gate.size());
    const Shape& gate = plan_.operations[alignment.gate.front()].task.shape;
    alignment.num_neurons = gate.at(0);
    alignment.hidden = gate.at(1);
    try {
      alignment.num_groups = model::routing_groups(*donor.catalog.family, donor.checkpoint->config, alignment.num_experts);
    } catch (const Error& error) {
      throw Error(error.code(), error.problems().front().message, donor.checkpoint->directory + "/config.json");
    }
    alignment.reference = static_cast<std::uint32_t>(slice.donor);
    for (std::uint32_t source = 0; source < slice.sources.size(); ++source) {
      if (source != alignment.reference) alignment.models.push_back(source);
    }
    if (!has_one_type_each(alignment)) return;
    alignment.first_order = plan_.num_orders;
    plan_.num_orders += alignment.models.size() * alignment.orders_per_model();
    wait_for_orders(alignment);
    plan_.alignments.push_back(std::move(alignment));
  }

  /// Experts change places, so each may be read where another was planned.
  bool has_one_type_each(const Alignment& alignment) {
    bool is_well = true;
    for (const std::vector<std::uint32_t>* experts : {&alignment.gate, &alignment.up, &alignment.down}) {
      const Operation& first = plan_.operations[experts->front()];
      for (const std::uint32_t index : *experts) {
        const Operation& operation = plan_.operations[index];
        for (std::size_t source = 0; source < operation.sources.size(); ++source) {
          const DType dtype = operation.sources[source].dtype;
          if (is_arithmetic(dtype) && dtype == first.sources[source].dtype && operation.task.shape == first.task.shape) continue;
          is_well = false;
          groups_.add("type",
                      {ErrorCode::kUnsupported,
                       "is " + std::string(name(dtype)) + " " + to_string(operation.task.shape) +
                           "; align_experts needs experts of one type " + "of numbers and one shape in each layer, and '" + first.name +
                           "' is " + std::string(name(first.sources[source].dtype)) + " " + to_string(first.task.shape) + ".",
                       plan_.input_files[first_leaf(operation.sources[source]).file].path, 0, operation.name});
        }
      }
    }
    return is_well;
  }

  void wait_for_orders(const Alignment& alignment) {
    const auto wrap = [&](std::uint32_t operation, std::uint32_t source, Kind kind, std::uint64_t columns, std::uint64_t first) {
      SourceView& view = plan_.operations[operation].sources[source];
      view = permuted(std::move(view), kind, columns, first);
    };
    for (std::size_t model = 0; model < alignment.models.size(); ++model) {
      const std::uint32_t source = alignment.models[model];
      wrap(alignment.router, source, Kind::kPermutedRows, alignment.hidden, alignment.expert_order(model));
      if (alignment.correction_bias != kNoOperation) {
        wrap(alignment.correction_bias, source, Kind::kPermutedRows, 1, alignment.expert_order(model));
      }
      if (!alignment.neurons) continue;
      for (std::uint32_t expert = 0; expert < alignment.num_experts; ++expert) {
        const std::uint64_t first = alignment.neuron_order(model, expert);
        wrap(alignment.gate[expert], source, Kind::kPermutedRows, alignment.hidden, first);
        wrap(alignment.up[expert], source, Kind::kPermutedRows, alignment.hidden, first);
        wrap(alignment.down[expert], source, Kind::kPermutedColumns, alignment.num_neurons, first);
      }
    }
  }

  const config::AlignExperts& align_;
  const Matching& matching_;
  const InputModels& inputs_;
  MergePlan& plan_;
  const bool also_single_;
  GroupedProblems groups_;
  std::map<int, Open> layers_;  // by layer of the output
  bool is_known_ = true;
};

bool is_identity(std::span<const std::uint32_t> order) {
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (order[i] != i) return false;
  }
  return true;
}

void check_permutation(std::span<const std::uint32_t> order) {
  std::vector<bool> seen(order.size());
  for (const std::uint32_t index : order) {
    if (index >= order.size() || seen[index]) throw Error(ErrorCode::kInternal, "an order of experts or neurons is no permutation");
    seen[index] = true;
  }
}

}  // namespace

void align_experts(const config::AlignExperts& align, const Matching& matching, const InputModels& inputs, const std::string& config_path,
                   ProblemList& problems, MergePlan& plan, AlignedLayers layers) {
  Aligner(align, matching, inputs, plan, layers).run(config_path, problems);
}

MergePlan with_orders(const MergePlan& plan, std::vector<std::uint32_t> orders) {
  if (orders.size() != plan.num_orders) throw Error(ErrorCode::kInternal, "there are other orders than planned");
  MergePlan result = plan;
  result.orders = std::move(orders);
  const std::span<const std::uint32_t> all = result.orders;
  for (const Alignment& alignment : result.alignments) {
    for (std::size_t model = 0; model < alignment.models.size(); ++model) {
      const std::uint32_t source = alignment.models[model];
      const std::span<const std::uint32_t> experts = all.subspan(alignment.expert_order(model), alignment.num_experts);
      check_permutation(experts);
      for (std::uint32_t expert = 0; alignment.neurons && expert < alignment.num_experts; ++expert) {
        check_permutation(all.subspan(alignment.neuron_order(model, expert), alignment.num_neurons));
      }
      for (const std::vector<std::uint32_t>* operations : {&alignment.gate, &alignment.up, &alignment.down}) {
        std::vector<SourceView> views;  // by the model's own expert
        const auto view_of = [&](std::uint32_t expert) -> SourceView& {
          SourceView& view = result.operations[(*operations)[expert]].sources[source];
          return alignment.neurons ? view.children.front() : view;
        };
        for (std::uint32_t expert = 0; expert < alignment.num_experts; ++expert) views.push_back(std::move(view_of(expert)));
        for (std::uint32_t expert = 0; expert < alignment.num_experts; ++expert) view_of(expert) = std::move(views[experts[expert]]);
        for (std::uint32_t expert = 0; alignment.neurons && expert < alignment.num_experts; ++expert) {
          SourceView& view = result.operations[(*operations)[expert]].sources[source];
          // Neurons that stay are read as if nothing had been asked.
          if (is_identity(all.subspan(view.first, alignment.num_neurons))) view = SourceView(std::move(view.children.front()));
        }
      }
    }
  }
  return result;
}

}  // namespace moeweld::plan
