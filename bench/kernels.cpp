// Each method's measuring and applying on tensors in memory, one thread or all (OMP_NUM_THREADS); bytes are those read and written.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "moeweld/merge/measure.h"
#include "moeweld/merge/method.h"

namespace {

using moeweld::DType;
namespace merge = moeweld::merge;

constexpr std::uint64_t kElements = std::uint64_t{1} << 25;

std::vector<std::uint16_t> random_bfloat16(std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0F, 0.02F);
  std::vector<std::uint16_t> table(1 << 16);
  for (std::uint16_t& entry : table) {
    const float value = normal(generator);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    entry = static_cast<std::uint16_t>(bits >> 16);
  }
  std::vector<std::uint16_t> values(kElements);
  for (std::uint16_t& value : values) value = table[generator() & 0xFFFFU];
  return values;
}

double parameter_value(const merge::ParameterRow& row) {
  if (row.name == "density") return 0.5;
  if (row.default_value) return *row.default_value;
  return row.optional ? std::numeric_limits<double>::quiet_NaN() : 0.5;
}

struct Case {
  explicit Case(const merge::MethodRow& row, std::size_t num_inputs) : method(&row) {
    task.shape = {kElements / 4096, 4096};
    task.output_dtype = DType::kBF16;
    task.base_index = row.inputs.base == merge::Base::kRequired ? 0 : -1;
    for (const auto& parameter : row.shared_parameters) task.parameters.push_back(parameter_value(parameter));
    for (std::size_t i = 0; i < num_inputs; ++i) {
      merge::TaskInput input{DType::kBF16, {}};
      for (const auto& parameter : row.model_parameters) input.parameters.push_back(parameter_value(parameter));
      task.inputs.push_back(input);
      data.push_back(random_bfloat16(static_cast<std::uint32_t>(i)));
    }
    for (const auto& values : data) pointers.push_back(reinterpret_cast<const std::byte*>(values.data()));
  }
  merge::Elements elements() const { return {0, kElements, pointers}; }

  const merge::MethodRow* method;
  merge::Task task;
  std::vector<std::vector<std::uint16_t>> data;
  std::vector<const std::byte*> pointers;
};

void measure(benchmark::State& state, const merge::MethodRow* method, std::size_t num_inputs) {
  const Case data(*method, num_inputs);
  for (auto _ : state) benchmark::DoNotOptimize(merge::measure_all(*method, data.task, data.elements()));
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * 2 * kElements * num_inputs));
}

void apply(benchmark::State& state, const merge::MethodRow* method, std::size_t num_inputs) {
  const Case data(*method, num_inputs);
  const merge::Decisions decisions = merge::measure_all(*method, data.task, data.elements());
  std::vector<std::uint16_t> output(kElements);
  for (auto _ : state) {
    merge::apply_elements(*method, data.task, decisions, data.elements(), reinterpret_cast<std::byte*>(output.data()));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * 2 * kElements * (num_inputs + 1)));
}

}  // namespace

int main(int argc, char** argv) {
  for (const merge::MethodRow& method : merge::method_table()) {
    const std::size_t num_inputs =
        std::min<std::size_t>(method.inputs.max_inputs, method.name == "ties" || method.name == "task_arithmetic" ? 3 : 2);
    const std::string name(method.name);
    const auto wall = [](benchmark::internal::Benchmark* registered) { registered->UseRealTime()->Unit(benchmark::kMillisecond); };
    wall(benchmark::RegisterBenchmark((name + "/apply").c_str(), apply, &method, num_inputs));
    if (method.next_phase != nullptr) wall(benchmark::RegisterBenchmark((name + "/measure").c_str(), measure, &method, num_inputs));
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
