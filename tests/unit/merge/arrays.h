#pragma once
/// Tensors for tests of merge methods: values as float64, and the same values as bytes of a dtype, converted in the plainest way.

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moeweld/merge/measure.h"
#include "moeweld/merge/method.h"

namespace moeweld::merge {

struct FloatFormat {
  int fraction_bits;
  int min_exponent;  ///< of the smallest normal number
  int max_exponent;
};

inline FloatFormat format_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return {52, -1022, 1023};
    case DType::kF32:
      return {23, -126, 127};
    case DType::kF16:
      return {10, -14, 15};
    default:
      return {7, -126, 127};
  }
}

/// Distance between neighbours of `value` in the dtype.
inline double step_at(DType dtype, double value) {
  const FloatFormat format = format_of(dtype);
  const int exponent = value == 0 ? format.min_exponent : std::max(std::ilogb(value), format.min_exponent);
  return std::ldexp(1.0, exponent - format.fraction_bits);
}

/// Nearest value of the dtype, ties to even; beyond the largest: infinity.
inline double round_to(DType dtype, double value) {
  if (dtype == DType::kF64 || !std::isfinite(value)) return value;
  const double step = step_at(dtype, value);
  const double rounded = std::nearbyint(value / step) * step;
  return std::abs(rounded) >= std::ldexp(1.0, format_of(dtype).max_exponent + 1)
             ? std::copysign(std::numeric_limits<double>::infinity(), value)
             : rounded;
}

/// Value of a BF16 or F16 code, from its sign, exponent and fraction.
inline double value_of_code(DType dtype, std::uint16_t code) {
  const FloatFormat format = format_of(dtype);
  const int exponent_bits = 15 - format.fraction_bits;
  const int fraction = code & ((1 << format.fraction_bits) - 1);
  const int exponent = (code >> format.fraction_bits) & ((1 << exponent_bits) - 1);
  const double sign = (code & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(fraction, format.min_exponent - format.fraction_bits);
  return sign * std::ldexp((1 << format.fraction_bits) + fraction, exponent - 1 + format.min_exponent - format.fraction_bits);
}

/// Code of a value that the BF16 or F16 dtype holds exactly (not NaN).
inline std::uint16_t code_of_value(DType dtype, double value) {
  const FloatFormat format = format_of(dtype);
  const int sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isinf(value)) return static_cast<std::uint16_t>(sign | ((1 << 15) - (1 << format.fraction_bits)));
  const double units = std::abs(value) / step_at(dtype, value);
  const int exponent = value == 0 ? 0 : std::max(std::ilogb(value), format.min_exponent) - format.min_exponent;
  // A normal number's leading one is in its units, and adds the 1 that its exponent field lacks here.
  return static_cast<std::uint16_t>(sign | ((exponent << format.fraction_bits) + static_cast<int>(units)));
}

/// One input: bytes of a dtype, and the values they hold.
struct Array {
  DType dtype{};
  std::vector<double> values;
  std::vector<std::byte> bytes;

  Array(DType type, std::vector<double> wanted) : dtype(type), values(std::move(wanted)), bytes(values.size() * size_bytes(type)) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = round_to(dtype, values[i]);
      store(i);
    }
  }

 private:
  void store(std::size_t i) {
    std::byte* target = bytes.data() + i * size_bytes(dtype);
    const auto put = [&](auto value) { std::memcpy(target, &value, sizeof value); };
    switch (dtype) {
      case DType::kF64:
        return put(values[i]);
      case DType::kF32:
        return put(static_cast<float>(values[i]));
      default:
        return put(code_of_value(dtype, values[i]));
    }
  }
};

/// Values of `dtype` in bytes.
inline std::vector<double> values_of(DType dtype, const std::vector<std::byte>& bytes) {
  const std::size_t size = size_bytes(dtype);
  std::vector<double> result(bytes.size() / size);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const auto get = [&](auto value) {
      std::memcpy(&value, bytes.data() + i * size, size);
      return value;
    };
    switch (dtype) {
      case DType::kF64:
        result[i] = get(0.0);
        break;
      case DType::kF32:
        result[i] = get(0.0F);
        break;
      default:
        result[i] = value_of_code(dtype, get(std::uint16_t{0}));
    }
  }
  return result;
}

using Parameters = std::vector<std::pair<std::string_view, double>>;

/// Values in the order of the rows: what `given` says, else the default, else NaN.
inline std::vector<double> in_order(const std::vector<ParameterRow>& rows, const Parameters& given) {
  std::vector<double> result;
  for (const ParameterRow& row : rows) {
    double value = row.default_value.value_or(std::numeric_limits<double>::quiet_NaN());
    for (const auto& [name, wanted] : given) {
      if (name == row.name) value = wanted;
    }
    result.push_back(value);
  }
  return result;
}

/// A method over arrays in memory.
struct Case {
  const MethodRow* method;
  Task task;
  std::vector<Array> arrays;
  std::vector<const std::byte*> pointers;

  Case(std::string_view name, DType output, std::vector<Array> inputs, int base, const Parameters& shared,
       const std::vector<Parameters>& per_model)
      : method(find_method(name)), arrays(std::move(inputs)) {
    task.shape = {arrays.at(0).values.size()};
    task.output_dtype = output;
    task.base_index = base;
    task.tensor_key = 0x123456789ABCDEF0u;
    task.parameters = in_order(method->shared_parameters, shared);
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      task.inputs.push_back({arrays[i].dtype, in_order(method->model_parameters, i < per_model.size() ? per_model[i] : Parameters{})});
      pointers.push_back(arrays[i].bytes.data());
    }
  }
  Case(const Case&) = delete;

  std::size_t size() const { return arrays[0].values.size(); }
  Elements whole() const { return {.first_element = 0, .num_elements = size(), .inputs = pointers}; }

  std::vector<std::byte> run_bytes() const {
    std::vector<std::byte> output(size() * size_bytes(task.output_dtype));
    apply_elements(*method, task, measure_all(*method, task, whole()), whole(), output.data());
    return output;
  }
  std::vector<double> run() const { return values_of(task.output_dtype, run_bytes()); }
};

/// Normal numbers of a weight matrix's size.
inline std::vector<double> normals(std::mt19937_64& engine, std::size_t count, double deviation = 0.05) {
  std::normal_distribution<double> normal(0, deviation);
  std::vector<double> result(count);
  for (double& value : result) value = normal(engine);
  return result;
}

/// A base and fine-tunes of it: neighbours that differ by little, as real models do.
inline std::vector<double> near(std::mt19937_64& engine, const std::vector<double>& base, double deviation = 0.004) {
  std::vector<double> result = normals(engine, base.size(), deviation);
  for (std::size_t i = 0; i < base.size(); ++i) result[i] += base[i];
  return result;
}

}  // namespace moeweld::merge
