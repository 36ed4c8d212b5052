#include "moeweld/hdf5/statistics_file.h"

#include <cmath>
#include <limits>
#include <optional>

#include "hdf5/attributes.h"
#include "hdf5/columns.h"
#include "hdf5/library.h"
#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "moeweld/formats/json.h"

namespace moeweld::hdf5 {

namespace {

using exec::TensorStatistics;
using exec::ValueStatistics;

constexpr std::int32_t kMostLayersAndExperts = 1 << 20;

template <class Get>
auto column(const std::vector<TensorStatistics>& tensors, Get&& get) {
  std::vector<decltype(get(tensors[0]))> values;
  values.reserve(tensors.size());
  for (const TensorStatistics& tensor : tensors) values.push_back(get(tensor));
  return values;
}

std::string shape_text(const Shape& shape) {
  std::string text;
  for (const std::uint64_t extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "[" + text + "]";
}

void write_values(ColumnWriter& writer, const std::vector<ValueStatistics>& values) {
  std::vector<double> norm;
  std::vector<double> max_absolute;
  std::vector<double> cosine;
  std::vector<double> difference_norm;
  std::vector<std::uint64_t> non_finite;
  for (const ValueStatistics& value : values) {
    norm.push_back(value.norm);
    max_absolute.push_back(value.max_absolute);
    cosine.push_back(value.cosine);
    difference_norm.push_back(value.difference_norm);
    non_finite.push_back(value.non_finite);
  }
  writer.write("norm", norm);
  writer.write("max_absolute", max_absolute);
  writer.write("cosine", cosine);
  writer.write("difference_norm", difference_norm);
  writer.write("non_finite", non_finite);
}

Handle make_group(hid_t parent, const char* name, const std::string& path) {
  const Handle creation = checked(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, "H5Pcreate", path);
  check(H5Pset_obj_track_times(creation.get(), false), "H5Pset_obj_track_times", path);
  return checked(H5Gcreate2(parent, name, H5P_DEFAULT, creation.get(), H5P_DEFAULT), H5Gclose, "H5Gcreate", path);
}

void write_tensors(hid_t file, const std::vector<TensorStatistics>& tensors, const std::string& path) {
  const Handle group = make_group(file, "tensors", path);
  ColumnWriter writer(group.get(), path);
  writer.write("output", column(tensors, [](const auto& tensor) { return tensor.output; }));
  writer.write("name", column(tensors, [](const auto& tensor) { return tensor.name; }));
  writer.write("pattern", column(tensors, [](const auto& tensor) { return tensor.pattern; }));
  writer.write("layer", column(tensors, [](const auto& tensor) { return std::int32_t{tensor.layer}; }));
  writer.write("expert", column(tensors, [](const auto& tensor) { return std::int32_t{tensor.expert}; }));
  writer.write("method", column(tensors, [](const auto& tensor) { return tensor.method; }));
  writer.write("dtype", column(tensors, [](const auto& tensor) { return std::string(name(tensor.dtype)); }));
  writer.write("shape", column(tensors, [](const auto& tensor) { return shape_text(tensor.shape); }));
  writer.write("measured", column(tensors, [](const auto& tensor) { return std::int32_t{tensor.is_measured}; }));
  writer.write("has_base", column(tensors, [](const auto& tensor) { return std::int32_t{tensor.has_base}; }));
  writer.write("reference", column(tensors, [](const auto& tensor) { return std::int32_t{tensor.reference}; }));
  writer.write("sign_conflicts", column(tensors, [](const auto& tensor) { return tensor.sign_conflicts; }));
  writer.write("density_kept", column(tensors, [](const auto& tensor) { return tensor.density_kept; }));
  writer.write("left_out", column(tensors, [](const auto& tensor) { return tensor.left_out; }));
  std::uint64_t next = 0;
  writer.write("first_input", column(tensors, [&](const auto& tensor) { return std::exchange(next, next + tensor.inputs.size()); }));
  write_values(writer, column(tensors, [](const auto& tensor) { return tensor.result; }));
}

void write_inputs(hid_t file, const std::vector<TensorStatistics>& tensors, const std::string& path) {
  std::vector<std::int32_t> models;
  std::vector<ValueStatistics> values;
  for (const TensorStatistics& tensor : tensors) {
    for (const std::uint32_t model : tensor.models) models.push_back(model == exec::kNoModel ? -1 : static_cast<std::int32_t>(model));
    values.insert(values.end(), tensor.inputs.begin(), tensor.inputs.end());
  }
  const Handle group = make_group(file, "inputs", path);
  ColumnWriter writer(group.get(), path);
  writer.write("model", models);
  write_values(writer, values);
}

void write_file(const std::string& path, const StatisticsFile& content) {
  const Handle access = file_access(path);
  const Handle creation = checked(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "H5Pcreate", path);
  check(H5Pset_obj_track_times(creation.get(), false), "H5Pset_obj_track_times", path);
  Handle file = checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), H5Fclose, "H5Fcreate", path);
  write_text(file.get(), "format", kStatisticsFormat, path);
  write_text(file.get(), "moeweld_version", content.version, path);
  write_text(file.get(), "title", content.title, path);
  write_long_text(file.get(), "merge_config", content.config, path);
  write_text(file.get(), "plan_digest", content.plan_digest, path);
  write_text(file.get(), "seed", std::to_string(content.seed), path);
  write_number(file.get(), "resumed", content.is_resumed ? 1 : 0, path);
  ColumnWriter(file.get(), path).write("models", content.models);
  write_tensors(file.get(), content.tensors, path);
  write_inputs(file.get(), content.tensors, path);
  if (!file.close()) fail("H5Fclose", path);
}

/// Values of one table, checked.
std::vector<ValueStatistics> read_values(const ColumnReader& reader, std::size_t length) {
  const std::vector<double> norm = reader.doubles("norm", length);
  const std::vector<double> max_absolute = reader.doubles("max_absolute", length);
  const std::vector<double> cosine = reader.doubles("cosine", length);
  const std::vector<double> difference_norm = reader.doubles("difference_norm", length);
  const std::vector<std::uint64_t> non_finite = reader.counts("non_finite", length);
  std::vector<ValueStatistics> values(length);
  for (std::size_t i = 0; i < length; ++i) {
    const std::string row = " in row " + std::to_string(i);
    if (norm[i] < 0) reader.refuse("norm", "is negative" + row);
    if (max_absolute[i] < 0) reader.refuse("max_absolute", "is negative" + row);
    if (difference_norm[i] < 0) reader.refuse("difference_norm", "is negative" + row);
    if (std::abs(cosine[i]) > 1) reader.refuse("cosine", "is not within -1 to 1" + row);
    values[i] = {norm[i], max_absolute[i], cosine[i], difference_norm[i], non_finite[i]};
  }
  return values;
}

std::vector<double> read_shares(const ColumnReader& reader, const char* name, std::size_t length) {
  std::vector<double> values = reader.doubles(name, length);
  for (std::size_t i = 0; i < length; ++i) {
    if (values[i] < 0 || values[i] > 1) reader.refuse(name, "is not within 0 to 1 in row " + std::to_string(i));
  }
  return values;
}

std::vector<std::int32_t> read_integers(const ColumnReader& reader, const char* name, std::size_t length, std::int32_t low,
                                        std::int32_t high) {
  std::vector<std::int32_t> values = reader.integers(name, length);
  for (std::size_t i = 0; i < length; ++i) {
    if (values[i] >= low && values[i] <= high) continue;
    reader.refuse(name, "has " + std::to_string(values[i]) + " in row " + std::to_string(i) + ", which is not within " +
                            std::to_string(low) + " to " + std::to_string(high));
  }
  return values;
}

Shape parse_shape(const ColumnReader& reader, const std::string& text, std::size_t row) {
  const formats::Json json = formats::Json::parse(text, nullptr, false);
  Shape shape;
  bool is_shape = json.is_array() && json.size() <= 32;
  for (std::size_t i = 0; is_shape && i < json.size(); ++i) {
    is_shape = json[i].is_number_unsigned();
    if (is_shape) shape.push_back(json[i].get<std::uint64_t>());
  }
  if (!is_shape) reader.refuse("shape", "has '" + printable(text, 60) + "' in row " + std::to_string(row) + ", which is not a shape");
  return shape;
}

void read_tensors(hid_t file, StatisticsFile& content, const std::string& path) {
  const Handle inputs_group = open_group(file, "inputs", path);
  const ColumnReader inputs_reader(inputs_group.get(), "inputs/", path);
  const std::size_t num_inputs = inputs_reader.length("model");
  const auto num_models = static_cast<std::int32_t>(content.models.size());
  const std::vector<std::int32_t> models = read_integers(inputs_reader, "model", num_inputs, -1, num_models - 1);
  const std::vector<ValueStatistics> inputs = read_values(inputs_reader, num_inputs);

  const Handle group = open_group(file, "tensors", path);
  const ColumnReader reader(group.get(), "tensors/", path);
  const std::size_t length = reader.length("name");
  const std::vector<std::string> outputs = reader.texts("output", length);
  const std::vector<std::string> names = reader.texts("name", length);
  const std::vector<std::string> patterns = reader.texts("pattern", length);
  const std::vector<std::int32_t> layers = read_integers(reader, "layer", length, -1, kMostLayersAndExperts);
  const std::vector<std::int32_t> experts = read_integers(reader, "expert", length, -1, kMostLayersAndExperts);
  const std::vector<std::string> methods = reader.texts("method", length);
  const std::vector<std::string> dtypes = reader.texts("dtype", length);
  const std::vector<std::string> shapes = reader.texts("shape", length);
  const std::vector<std::int32_t> measured = read_integers(reader, "measured", length, 0, 1);
  const std::vector<std::int32_t> has_base = read_integers(reader, "has_base", length, 0, 1);
  const std::vector<std::int32_t> references = reader.integers("reference", length);
  const std::vector<double> sign_conflicts = read_shares(reader, "sign_conflicts", length);
  const std::vector<double> density_kept = read_shares(reader, "density_kept", length);
  const std::vector<std::uint64_t> left_out = reader.counts("left_out", length);
  const std::vector<std::uint64_t> first_input = reader.counts("first_input", length);
  const std::vector<ValueStatistics> results = read_values(reader, length);
  for (std::size_t i = 0; i < length; ++i) {
    const std::string row = " in row " + std::to_string(i);
    const std::uint64_t first = first_input[i];
    const std::uint64_t end = i + 1 < length ? first_input[i + 1] : num_inputs;
    if (first > end || end > num_inputs || (i == 0 && first != 0)) reader.refuse("first_input", "does not divide the inputs" + row);
    const auto count = static_cast<std::int64_t>(end - first);
    if (references[i] < -1 || references[i] >= count || (count == 0) != (references[i] == -1))
      reader.refuse("reference", "names no input" + row);
    const std::optional<DType> dtype = dtype_from_safetensors(dtypes[i]);
    if (!dtype) reader.refuse("dtype", "has '" + printable(dtypes[i], 60) + "'" + row + ", which is no type");
    TensorStatistics tensor;
    tensor.output = outputs[i];
    tensor.name = names[i];
    tensor.pattern = patterns[i];
    tensor.layer = layers[i];
    tensor.expert = experts[i];
    tensor.method = methods[i];
    tensor.dtype = *dtype;
    tensor.shape = parse_shape(reader, shapes[i], i);
    tensor.is_measured = measured[i] != 0;
    tensor.has_base = has_base[i] != 0;
    tensor.reference = references[i];
    for (std::uint64_t input = first; input < end; ++input) {
      tensor.models.push_back(models[input] < 0 ? exec::kNoModel : static_cast<std::uint32_t>(models[input]));
      tensor.inputs.push_back(inputs[input]);
    }
    tensor.result = results[i];
    tensor.sign_conflicts = sign_conflicts[i];
    tensor.density_kept = density_kept[i];
    tensor.left_out = left_out[i];
    content.tensors.push_back(std::move(tensor));
  }
}

std::uint64_t parse_seed(const std::string& text, const std::string& path) {
  const formats::Json json = formats::Json::parse(text, nullptr, false);
  if (!json.is_number_unsigned()) throw Error(ErrorCode::kInvalidInput, "its attribute 'seed' is not a number", path);
  return json.get<std::uint64_t>();
}

}  // namespace

void write_statistics(Storage& storage, const std::string& path, const StatisticsFile& content) {
  silence();
  const std::string temporary = path + ".tmp";
  write_file(temporary, content);
  storage.open_output(temporary, IoMode::kBuffered)->sync();
  storage.rename(temporary, path);
}

StatisticsFile read_statistics(Storage& storage, const std::string& path) {
  silence();
  if (!storage.exists(path) || storage.is_directory(path)) throw Error(ErrorCode::kInvalidInput, "there is no such file", path);
  if (H5Fis_hdf5(path.c_str()) <= 0) throw Error(ErrorCode::kInvalidInput, "is not an HDF5 file, or its beginning is damaged", path);
  const Handle access = file_access(path);
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!file.is_open()) throw Error(ErrorCode::kInvalidInput, "cannot be opened as HDF5: it is damaged or was cut", path);
  const std::string format = read_text(file.get(), "format", path);
  if (format != kStatisticsFormat) {
    const bool is_other_version = format.starts_with("moeweld.stats/");
    throw Error(
        is_other_version ? ErrorCode::kUnsupported : ErrorCode::kInvalidInput,
        "has the format '" + printable(format, 60) + "'; this version of moeweld reads '" + kStatisticsFormat + "', which --stats writes",
        path);
  }
  StatisticsFile content;
  content.version = read_text(file.get(), "moeweld_version", path);
  content.title = read_text(file.get(), "title", path);
  content.config = read_long_text(file.get(), "merge_config", path);
  content.plan_digest = read_text(file.get(), "plan_digest", path);
  content.seed = parse_seed(read_text(file.get(), "seed", path), path);
  content.is_resumed = read_number(file.get(), "resumed", path) != 0;
  const ColumnReader root(file.get(), "", path);
  content.models = root.texts("models", root.length("models"));
  read_tensors(file.get(), content, path);
  return content;
}

}  // namespace moeweld::hdf5
