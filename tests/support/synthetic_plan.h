#pragma once
/// Small checkpoints with random values, and plans over them made by hand: what exec and dist are tested with, without config or planner.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "moeweld/base/random.h"
#include "moeweld/formats/safetensors.h"
#include "moeweld/merge/expert_variation.h"
#include "moeweld/merge/measure.h"
#include "moeweld/merge/method.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/storage/storage.h"

namespace moeweld::testing_support {

struct SyntheticTensor {
  std::string name;
  Shape shape;
  DType dtype = DType::kBF16;
};

/// A file of `tensors` with values of about 0.02, many of them equal in magnitude (three significant bits).
inline void write_model_file(const std::string& path, const std::vector<SyntheticTensor>& tensors, std::uint32_t seed) {
  std::vector<formats::TensorLayout> layout;
  for (const SyntheticTensor& tensor : tensors) layout.push_back({tensor.name, tensor.dtype, tensor.shape});
  std::ofstream file(path, std::ios::binary);
  file << formats::serialize_safetensors_header(layout);
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0F, 0.02F);
  for (const SyntheticTensor& tensor : tensors) {
    const std::uint64_t count = num_elements(tensor.shape);
    if (tensor.dtype == DType::kF32) {
      std::vector<float> values(count);
      for (float& value : values) value = normal(generator);
      file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(count * 4));
    } else {
      std::vector<std::uint16_t> values(count);
      for (std::uint16_t& value : values)
        value = static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(normal(generator)) >> 16) & 0xFFF0U);
      file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(count * 2));
    }
  }
}

/// Parameters in the order of the method's rows, by name; what is not named takes its default.
inline std::vector<double> parameters_for(const std::vector<merge::ParameterRow>& rows,
                                          const std::vector<std::pair<std::string, double>>& given) {
  std::vector<double> result;
  for (const merge::ParameterRow& row : rows) {
    double value = row.default_value.value_or(std::numeric_limits<double>::quiet_NaN());
    for (const auto& [name, number] : given) {
      if (name == row.name) value = number;
    }
    result.push_back(value);
  }
  return result;
}

/// Models of `tensors` in `directory` and a plan that merges them tensor by tensor.
inline plan::MergePlan make_synthetic_plan(const std::string& directory, const std::vector<SyntheticTensor>& tensors,
                                           const std::string& method_name, int num_models, bool has_base,
                                           const std::vector<std::pair<std::string, double>>& parameters,
                                           std::size_t tensors_per_file = 3) {
  const merge::MethodRow* method = merge::find_method(method_name);
  plan::MergePlan plan;
  plan.title = method_name;
  plan.config_text = "merge_method: " + method_name + "\n";
  const auto storage = make_posix_storage();
  std::vector<formats::SafetensorsHeader> headers;
  for (int model = 0; model < num_models; ++model) {
    const std::string path = directory + "/model-" + std::to_string(model) + ".safetensors";
    write_model_file(path, tensors, static_cast<std::uint32_t>(model + 1));
    plan.models.push_back({"model-" + std::to_string(model), directory});
    plan.input_files.push_back({path, storage->identity(path).value(), static_cast<std::uint32_t>(model)});
    std::ifstream file(path, std::ios::binary);
    std::uint64_t length = 0;
    file.read(reinterpret_cast<char*>(&length), 8);
    std::string text(length, ' ');
    file.read(text.data(), static_cast<std::streamsize>(length));
    headers.push_back(formats::parse_safetensors_header(text, plan.input_files.back().identity.size_bytes, path));
  }
  for (std::size_t first = 0; first < tensors.size(); first += tensors_per_file) {
    std::vector<formats::TensorLayout> layout;
    for (std::size_t i = first; i < std::min(first + tensors_per_file, tensors.size()); ++i) {
      layout.push_back({tensors[i].name, tensors[i].dtype, tensors[i].shape});
    }
    plan::PlannedOutputFile file;
    file.name = "part-" + std::to_string(plan.output_files.size()) + ".safetensors";
    file.header = formats::serialize_safetensors_header(layout);
    std::uint64_t offset = file.header.size();
    for (std::size_t i = 0; i < layout.size(); ++i) {
      const std::uint64_t size = num_elements(layout[i].shape) * size_bytes(layout[i].dtype);
      plan::Operation operation;
      operation.name = layout[i].name;
      operation.tensor = static_cast<std::uint32_t>(plan.tensors.size());
      operation.method = static_cast<std::uint32_t>(method - merge::method_table().data());
      operation.task.shape = layout[i].shape;
      operation.task.output_dtype = layout[i].dtype;
      operation.task.base_index = has_base ? 0 : -1;
      operation.task.parameters = parameters_for(method->shared_parameters, parameters);
      operation.task.tensor_key = stream_id(layout[i].name);
      for (int model = 0; model < num_models; ++model) {
        operation.task.inputs.push_back({layout[i].dtype, parameters_for(method->model_parameters, parameters)});
        const auto& source = headers[static_cast<std::size_t>(model)].tensors[first + i];
        operation.sources.push_back({.dtype = source.dtype,
                                     .file = static_cast<std::uint32_t>(model),
                                     .begin = source.begin,
                                     .num_elements = num_elements(source.shape),
                                     .children = {}});
      }
      plan.tensors.push_back(
          {layout[i].name, layout[i].dtype, layout[i].shape, static_cast<std::uint32_t>(plan.output_files.size()), offset, size});
      plan.operations.push_back(std::move(operation));
      offset += size;
    }
    file.size_bytes = offset;
    plan.output_files.push_back(std::move(file));
  }
  return plan;
}

/// One plan with everything that assemblies are made of: columns side by side with scales of their own, shards of rows and columns, neurons
/// drawn anew, noise. Matrices have several blocks and rows of odd length.
inline plan::MergePlan make_assembly_plan(const std::string& directory) {
  using Kind = plan::SourceView::Kind;
  const std::vector<SyntheticTensor> tensors = {{"joined", {600, 1531}}, {"stacked", {900, 701}}, {"redrawn", {700, 1531}},
                                                {"plain", {300, 701}},   {"shard", {600, 510}},   {"other", {600, 1021}}};
  plan::MergePlan plan = make_synthetic_plan(directory, tensors, "passthrough", 1, false, {});
  const auto leaf = [&](std::size_t operation, std::uint64_t columns) {
    plan::SourceView view = plan.operations[operation].sources[0];
    view.columns = columns;
    return view;
  };
  const auto node = [](Kind kind, std::vector<plan::SourceView> children, std::uint64_t rows, std::uint64_t columns, std::uint64_t first) {
    plan::SourceView view;
    view.kind = kind;
    view.dtype = DType::kBF16;
    view.columns = columns;
    view.num_elements = rows * columns;
    view.first = first;
    view.children = std::move(children);
    return view;
  };
  const plan::SourceView joined = node(Kind::kColumns, {leaf(4, 510), leaf(5, 1021)}, 600, 1531, 0);
  const plan::SourceView shard = node(Kind::kColumnSlice, {leaf(0, 1531)}, 600, 510, 1000);
  const plan::SourceView rest = node(Kind::kColumnSlice, {joined}, 600, 1021, 200);
  const plan::SourceView stacked = node(Kind::kRows, {node(Kind::kRowSlice, {leaf(1, 701)}, 600, 701, 100), leaf(3, 701)}, 900, 701, 0);
  const auto vary = [&](std::size_t index, plan::SourceView view, merge::ExpertVariation variation) {
    plan::Operation& operation = plan.operations[index];
    operation.sources = {std::move(view)};
    operation.method = static_cast<std::uint32_t>(&merge::expert_variation() - merge::method_table().data());
    operation.task.seed = 3;
    merge::set_variation(variation, operation.task);
  };
  vary(0, joined,
       {.axis = merge::NeuronAxis::kColumns,
        .groups = {{.noise_scale = 0.1, .scale = 2, .num_neurons = 510}, {.noise_scale = 0, .scale = 1, .num_neurons = 1021}}});
  vary(1, stacked, {.redrawn_ratio = 0.25, .neuron_set = 4, .groups = {{.num_neurons = 900}}});
  vary(
      2, plan.operations[2].sources[0],
      {.axis = merge::NeuronAxis::kColumns, .redrawn_ratio = 0.5, .neuron_set = 9, .groups = {{.noise_scale = 0.01, .num_neurons = 1531}}});
  plan.operations[4].sources = {shard};
  plan.operations[5].sources = {rest};
  return plan;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Where one element of a view is: file and byte. By the definitions of the nodes, an element at a time.
inline std::pair<std::uint32_t, std::uint64_t> place_of(const plan::SourceView& view, std::uint64_t element) {
  using Kind = plan::SourceView::Kind;
  if (view.kind == Kind::kBytes) return {view.file, view.begin + element * size_bytes(view.dtype)};
  if (view.kind == Kind::kRowSlice) return place_of(view.children[0], view.first * view.columns + element);
  const std::uint64_t row = element / view.columns;
  std::uint64_t column = element % view.columns;
  if (view.kind == Kind::kColumnSlice) return place_of(view.children[0], row * view.children[0].columns + view.first + column);
  for (const plan::SourceView& child : view.children) {
    if (view.kind == Kind::kRows) {
      if (element < child.num_elements) return place_of(child, element);
      element -= child.num_elements;
    } else {
      if (column < child.columns) return place_of(child, row * child.columns + column);
      column -= child.columns;
    }
  }
  throw std::runtime_error("no such element");
}

/// What the plan's output files must hold, computed tensor by tensor in memory without exec: whole tensor, measure_all, apply.
inline std::vector<std::string> expected_files(const plan::MergePlan& plan) {
  std::vector<std::string> files;
  std::vector<std::string> inputs;
  for (const plan::PlannedInputFile& input : plan.input_files) inputs.push_back(read_file(input.path));
  for (const plan::PlannedOutputFile& file : plan.output_files) {
    files.push_back(file.header);
    files.back().resize(file.size_bytes);
  }
  for (const plan::Operation& operation : plan.operations) {
    const merge::MethodRow& method = merge::method_table()[operation.method];
    std::vector<std::vector<double>> aligned;  // doubles: aligned for any dtype
    std::vector<const std::byte*> pointers;
    for (const plan::SourceView& source : operation.sources) {
      const std::size_t bytes = source.num_elements * size_bytes(source.dtype);
      aligned.emplace_back((bytes + 7) / 8);
      for (std::uint64_t i = 0; i < source.num_elements; ++i) {
        const auto [file, byte] = place_of(source, i);
        std::memcpy(reinterpret_cast<std::byte*>(aligned.back().data()) + i * size_bytes(source.dtype), inputs[file].data() + byte,
                    size_bytes(source.dtype));
      }
    }
    for (const auto& data : aligned) pointers.push_back(reinterpret_cast<const std::byte*>(data.data()));
    const merge::Elements whole{.first_element = 0, .num_elements = operation.task.elements(), .inputs = pointers};
    const plan::Destination place = plan::destination(plan, operation);
    std::vector<double> output((place.size_bytes + 7) / 8);
    merge::apply_elements(method, operation.task, merge::measure_all(method, operation.task, whole), whole,
                          reinterpret_cast<std::byte*>(output.data()));
    if (place.size_bytes != 0) std::memcpy(files[place.file].data() + place.begin, output.data(), place.size_bytes);
  }
  return files;
}

}  // namespace moeweld::testing_support
