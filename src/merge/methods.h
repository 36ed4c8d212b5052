#pragma once
/// The rows of the method table, one per file in methods/, and what several of them share.

#include <string>
#include <vector>

#include "moeweld/merge/method.h"

namespace moeweld::merge {

const MethodRow& passthrough_method();
const MethodRow& linear_method();
const MethodRow& slerp_method();
const MethodRow& task_arithmetic_method();
const MethodRow& ties_method();

/// "weight of model 2 must be a finite number." for every per-model and shared parameter that is NaN or infinite without being optional.
std::vector<std::string> finite_parameter_problems(const MethodRow& method, const Task& task);

/// Indices of the inputs other than the base.
std::vector<std::size_t> task_vectors(const Task& task);

/// Σ coefficient_i x_i over the inputs named, or with the task's base, Σ coefficient_i (x_i − b), divided, times lambda, plus b.
struct Combination {
  std::vector<std::size_t> inputs;
  std::vector<double> coefficients;
  bool around_base = false;
  double divisor = 1;
  double lambda = 1;
};
void apply_combination(const Task& task, const Combination& combination, const Elements& elements, std::byte* output);

/// The inputs' values themselves, converted; NaN keeps its payload.
void apply_conversion(const Task& task, std::size_t input, const Elements& elements, std::byte* output);

}  // namespace moeweld::merge
