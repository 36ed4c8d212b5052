#include "moeweld/plan/plan_report.h"

#include <algorithm>
#include <map>
#include <ostream>

#include "moeweld/base/text.h"
#include "moeweld/formats/json.h"
#include "moeweld/merge/method.h"

namespace moeweld::plan {

namespace {

using formats::Json;

std::string plural(std::uint64_t count, const std::string& noun) { return std::to_string(count) + " " + noun + (count == 1 ? "" : "s"); }

struct Aggregate {
  std::uint64_t count = 0;
  std::uint64_t num_elements = 0;
  std::string first;
};

std::string_view kind_name(const Operation& operation) {
  switch (operation.kind) {
    case Operation::Kind::kMerge:
      return merge::method_table()[operation.method].name;
    case Operation::Kind::kCopy:
      return "copy";
    case Operation::Kind::kRandomFill:
      return "random";
    case Operation::Kind::kConstant:
      return "constant";
    case Operation::Kind::kSlot:
      return "slot";
    case Operation::Kind::kBlockScales:
      return "block_scales";
  }
  return "unknown";
}

Json view_json(const SourceView& view) {
  Json json;
  if (view.kind == SourceView::Kind::kBytes) {
    json["file"] = view.file;
    json["begin"] = view.begin;
  } else {
    constexpr const char* kNames[] = {"bytes",        "rows", "columns", "row_slice", "column_slice", "permuted_rows", "permuted_columns",
                                      "block_scaled", "zeros"};
    json["view"] = kNames[static_cast<std::size_t>(view.kind)];
    json["columns"] = view.columns;
    if (view.kind != SourceView::Kind::kRows && view.kind != SourceView::Kind::kColumns && view.kind != SourceView::Kind::kZeros) {
      json["first"] = view.first;
    }
    if (view.kind != SourceView::Kind::kZeros) json["of"] = Json::array();
    for (const SourceView& child : view.children) json["of"].push_back(view_json(child));
  }
  json["elements"] = view.num_elements;
  json["dtype"] = name(view.dtype);
  return json;
}

Json operation_json(const MergePlan& plan, const Operation& operation) {
  Json json;
  json["name"] = operation.name;
  json["operation"] = kind_name(operation);
  json["shape"] = operation.kind == Operation::Kind::kBlockScales ? plan.tensors[operation.tensor].shape : operation.task.shape;
  json["dtype"] = name(operation.result_dtype());
  json["tensor"] = plan.tensors[operation.tensor].name;
  json["offset"] = operation.offset_bytes;
  if (operation.kind == Operation::Kind::kMerge) {
    const merge::MethodRow& method = merge::method_table()[operation.method];
    Json parameters = Json::object();
    for (std::size_t i = 0; i < method.shared_parameters.size() && i < operation.task.parameters.size(); ++i) {
      parameters[std::string(method.shared_parameters[i].name)] = operation.task.parameters[i];
    }
    json["parameters"] = std::move(parameters);
    if (operation.task.base_index >= 0) json["base"] = operation.task.base_index;
  }
  if (operation.kind == Operation::Kind::kConstant) json["value"] = operation.constant;
  if (operation.kind == Operation::Kind::kSlot) json["slot"] = plan.slots[operation.slot].name;
  Json sources = Json::array();
  for (std::size_t i = 0; i < operation.sources.size(); ++i) {
    Json entry = view_json(operation.sources[i]);
    if (operation.kind == Operation::Kind::kMerge) {
      const merge::MethodRow& method = merge::method_table()[operation.method];
      for (std::size_t j = 0; j < method.model_parameters.size() && j < operation.task.inputs[i].parameters.size(); ++j) {
        entry[std::string(method.model_parameters[j].name)] = operation.task.inputs[i].parameters[j];  // NaN becomes null
      }
    }
    sources.push_back(std::move(entry));
  }
  json["sources"] = std::move(sources);
  return json;
}

/// Writes a list element by element: a plan of 10^5 operations never becomes one value in memory.
template <typename Values, typename ToJson>
void write_list(std::ostream& out, const char* key, const Values& values, ToJson&& to_json, bool last = false) {
  out << "\"" << key << "\": [";
  bool first = true;
  for (const auto& value : values) {
    out << (first ? "\n  " : ",\n  ") << to_json(value).dump(-1, ' ', false, Json::error_handler_t::replace);
    first = false;
  }
  out << (first ? "]" : "\n]") << (last ? "\n" : ",\n");
}

}  // namespace

std::string plan_text(const MergePlan& plan, const Schedule& schedule, std::uint64_t memory_bytes, bool verbose) {
  std::string text = plan.title + "     " + plural(plan.tensors.size(), "tensor") + ", " + format_bytes(plan.output_bytes()) + " out in " +
                     plural(plan.num_files(), "file") + (plan.outputs.empty() ? "" : " of " + plural(plan.outputs.size(), "model")) + ", " +
                     format_bytes(plan.input_bytes()) + " in (each byte read once)\n";
  const std::vector<RankLoad> loads = rank_loads(plan, schedule);
  RankLoad most;
  for (const RankLoad& load : loads) {
    most.read_bytes = std::max(most.read_bytes, load.read_bytes);
    most.write_bytes = std::max(most.write_bytes, load.write_bytes);
  }
  std::size_t most_ranks = 1;
  for (const SharedMeasurement& measurement : schedule.measurements) most_ranks = std::max(most_ranks, measurement.ranks.size());
  text += schedule.world_size == 1 ? "one rank: " : "per rank (" + std::to_string(schedule.world_size) + "): at most ";
  text += format_bytes(most.write_bytes) + " written, " + format_bytes(most.read_bytes) + " read, " + format_memory(memory_bytes) +
          " of memory";
  if (!schedule.measurements.empty()) {
    text +=
        "; " + plural(schedule.measurements.size(), "tensor") + " measured by several ranks (at most " + std::to_string(most_ranks) + ")";
  }
  text += "\nrandom seed " + std::to_string(plan.seed) + "\n";
  for (const std::string& line : plan.composition) text += printable(line, 500) + "\n";
  if (!plan.alignments.empty()) {
    const bool neurons = plan.alignments.front().neurons;
    text += "open slots: the order of experts" + std::string(neurons ? " and of their neurons" : "") + " in " +
            plural(plan.alignments.size(), "layer") + ", filled from tensor data before the first item (moeweld plan --align shows them)\n";
  }
  for (const Slot& slot : plan.slots) text += "open slot: " + slot.name + ", filled from tensor data before the first item\n";

  std::map<std::string, Aggregate> dropped;
  for (const DroppedTensor& tensor : plan.dropped) {
    Aggregate& entry = dropped[tensor.reason];
    if (entry.count++ == 0) entry.first = printable(tensor.name, 100);
    entry.num_elements += tensor.num_elements;
  }
  for (const auto& [reason, entry] : dropped) {
    text += "not carried over: " + entry.first + (entry.count > 1 ? " and " + std::to_string(entry.count - 1) + " more" : "") + " (" +
            plural(entry.num_elements, "element") + "): " + reason + "\n";
  }
  std::map<std::string, std::string> files;
  for (const AuxiliaryFile& file : plan.auxiliary_files) {
    if (file.action != AuxiliaryFile::Action::kDrop) continue;
    std::string& names = files[file.reason];
    names += (names.empty() ? "" : ", ") + printable(file.name, 100);
  }
  for (const auto& [reason, names] : files) text += "file not carried over: " + names + ": " + reason + "\n";
  for (const std::string& note : plan.notes) text += "note: " + note + "\n";
  for (const std::string& warning : plan.warnings) text += "warning: " + warning + "\n";
  if (verbose) {
    for (const PlannedTensor& tensor : plan.tensors) {
      text += "  " + printable(tensor.name) + "  " + std::string(name(tensor.dtype)) + " " + to_string(tensor.shape) + "  " +
              plan.output_files[tensor.file].name + "\n";
    }
  }
  return text;
}

void write_plan_json(std::ostream& out, const MergePlan& plan, const Schedule& schedule, std::uint64_t memory_bytes) {
  out << "{\n\"schema\": \"moeweld.plan/1\",\n\"title\": " << Json(plan.title).dump(-1, ' ', false, Json::error_handler_t::replace)
      << ",\n\"seed\": " << plan.seed << ",\n\"ranks\": " << schedule.world_size << ",\n\"memory_bytes_per_rank\": " << memory_bytes
      << ",\n\"input_bytes\": " << plan.input_bytes() << ",\n\"output_bytes\": " << plan.output_bytes()
      << ",\n\"shared_measurements\": " << schedule.measurements.size() << ",\n";
  write_list(out, "models", plan.models, [](const PlannedModel& model) {
    return Json{{"reference", model.reference}, {"directory", model.directory}};
  });
  write_list(out, "input_files", plan.input_files, [](const PlannedInputFile& file) {
    return Json{{"path", file.path}, {"size_bytes", file.identity.size_bytes}, {"model", file.model}};
  });
  write_list(out, "output_files", plan.output_files, [](const PlannedOutputFile& file) {
    Json json{{"name", file.name}, {"size_bytes", file.size_bytes}};
    if (!file.copies.empty()) json["copies"] = file.copies;
    return json;
  });
  write_list(out, "rank_loads", rank_loads(plan, schedule), [](const RankLoad& load) {
    return Json{{"read_bytes", load.read_bytes}, {"write_bytes", load.write_bytes}};
  });
  write_list(out, "slots", plan.slots, [](const Slot& slot) { return Json{{"name", slot.name}, {"shape", slot.shape}}; });
  write_list(out, "alignments", plan.alignments, [](const Alignment& alignment) {
    return Json{{"layer", alignment.layer},
                {"experts", alignment.num_experts},
                {"groups", alignment.num_groups},
                {"neurons", alignment.neurons ? Json(alignment.num_neurons) : Json()},
                {"models", alignment.models}};
  });
  write_list(out, "dropped", plan.dropped, [](const DroppedTensor& tensor) {
    return Json{{"model", tensor.model}, {"name", tensor.name}, {"reason", tensor.reason}};
  });
  write_list(out, "other_files", plan.auxiliary_files, [](const AuxiliaryFile& file) {
    const char* actions[] = {"write", "copy", "drop"};
    return Json{{"name", file.name}, {"action", actions[static_cast<int>(file.action)]}, {"reason", file.reason}};
  });
  write_list(out, "composition", plan.composition, [](const std::string& line) { return Json(line); });
  write_list(out, "notes", plan.notes, [](const std::string& note) { return Json(note); });
  write_list(out, "warnings", plan.warnings, [](const std::string& warning) { return Json(warning); });
  write_list(
      out, "operations", plan.operations, [&](const Operation& operation) { return operation_json(plan, operation); }, true);
  out << "}\n";
}

}  // namespace moeweld::plan
