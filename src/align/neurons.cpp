#include "align/neurons.h"

#include <algorithm>
#include <array>

#include "align/products.h"
#include "moeweld/base/random.h"
#include "moeweld/merge/decode.h"

namespace moeweld::align {

namespace {

constexpr std::uint64_t kSketchSeed = 0x6d6f6577656c64;
/// Neurons whose columns of down are gathered at once.
constexpr std::uint64_t kNeuronBlock = 128;

const std::byte* element(const StoredMatrix& matrix, std::uint64_t index) { return matrix.data + index * size_bytes(matrix.dtype); }

std::vector<float> random_signs(std::string_view matrix, std::uint64_t count) {
  std::vector<float> signs(count);
  fill_uniform({kSketchSeed, stream_id(matrix)}, 0, signs);
  for (float& sign : signs) sign = sign < 0.5F ? -1.0F : 1.0F;
  return signs;
}

double dot(const float* a, const float* b, std::size_t count) {
  constexpr std::size_t kLanes = 16;
  std::array<double, kLanes> lanes{};
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
  }
  for (std::size_t lane = 0; i < count; ++i, ++lane) lanes[lane] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

/// Calls work(first, count) for blocks of neurons, on several threads.
template <class Work>
void for_blocks(std::uint64_t num_neurons, int threads, const Work& work, std::uint64_t block_neurons = kNeuronBlock) {
  const auto num_blocks = static_cast<std::int64_t>((num_neurons + block_neurons - 1) / block_neurons);
#pragma omp parallel for schedule(dynamic, 1) num_threads(std::max(1, threads)) if (num_blocks > 1)
  for (std::int64_t block = 0; block < num_blocks; ++block) {
    const std::uint64_t first = static_cast<std::uint64_t>(block) * block_neurons;
    work(first, std::min(block_neurons, num_neurons - first));
  }
}

}  // namespace

std::uint64_t num_column_runs(const ExpertMatrices& expert) { return 3 * ((expert.hidden + kDepth - 1) / kDepth); }

void decode_column_run(const ExpertMatrices& expert, std::uint64_t run, std::vector<float>& result, int threads) {
  const std::uint64_t runs = num_column_runs(expert) / 3;
  const std::uint64_t begin = run % runs * kDepth;
  const std::uint64_t width = std::min<std::uint64_t>(kDepth, expert.hidden - begin);
  result.assign(expert.num_neurons * kDepth, 0.0F);
  if (run / runs < 2) {
    const StoredMatrix& matrix = run / runs == 0 ? expert.gate : expert.up;
    for_blocks(expert.num_neurons, threads, [&](std::uint64_t first, std::uint64_t count) {
      for (std::uint64_t n = first; n < first + count; ++n) {
        merge::decode_elements(matrix.dtype, element(matrix, n * expert.hidden + begin), std::span(result.data() + n * kDepth, width));
      }
    });
    return;
  }
  for_blocks(expert.num_neurons, threads, [&](std::uint64_t first, std::uint64_t count) {
    std::vector<float> row(count);
    for (std::uint64_t k = 0; k < width; ++k) {
      merge::decode_elements(expert.down.dtype, element(expert.down, (begin + k) * expert.num_neurons + first), row);
      for (std::uint64_t n = 0; n < count; ++n) result[(first + n) * kDepth + k] = row[n];
    }
  });
}

void sketch_neurons(const ExpertMatrices& expert, std::vector<float>& result, int threads) {
  const std::vector<float> gate_signs = random_signs("gate", expert.hidden);
  const std::vector<float> up_signs = random_signs("up", expert.hidden);
  const std::vector<float> down_signs = random_signs("down", expert.hidden);
  result.assign(expert.num_neurons * kDepth, 0.0F);
  for_blocks(expert.num_neurons, threads, [&](std::uint64_t first, std::uint64_t count) {
    std::vector<float> row(std::max(expert.hidden, count));
    for (std::uint64_t n = first; n < first + count; ++n) {
      float* const target = result.data() + n * kDepth;
      for (const auto& [matrix, signs] : {std::pair(&expert.gate, &gate_signs), std::pair(&expert.up, &up_signs)}) {
        merge::decode_elements(matrix->dtype, element(*matrix, n * expert.hidden), std::span(row.data(), expert.hidden));
        for (std::uint64_t begin = 0; begin < expert.hidden; begin += kDepth) {
          const std::uint64_t width = std::min<std::uint64_t>(kDepth, expert.hidden - begin);
          for (std::uint64_t k = 0; k < width; ++k) target[k] += (*signs)[begin + k] * row[begin + k];
        }
      }
    }
    std::vector<float> columns(kDepth * count);  // transposed, so that a row of down is added at once
    for (std::uint64_t h = 0; h < expert.hidden; ++h) {
      merge::decode_elements(expert.down.dtype, element(expert.down, h * expert.num_neurons + first), std::span(row.data(), count));
      float* const target = columns.data() + h % kDepth * count;
      for (std::uint64_t n = 0; n < count; ++n) target[n] += down_signs[h] * row[n];
    }
    for (std::uint64_t n = 0; n < count; ++n) {
      for (std::uint64_t k = 0; k < kDepth; ++k) result[(first + n) * kDepth + k] += columns[k * count + n];
    }
  });
}

std::vector<float> sketch_expert(const std::vector<float>& sketched_neurons, std::uint64_t num_neurons, std::uint64_t rows) {
  std::vector<float> result(rows * kDepth);
  const std::vector<float> signs = random_signs("neurons", num_neurons);
  for (std::uint64_t n = 0; n < num_neurons; ++n) {
    for (std::size_t k = 0; k < kDepth; ++k) result[n % rows * kDepth + k] += signs[n] * sketched_neurons[n * kDepth + k];
  }
  return result;
}

std::vector<double> paired_products(const ExpertMatrices& a, const ExpertMatrices& b, std::span<const std::uint32_t> order, int threads) {
  std::vector<double> result(a.num_neurons);
  for_blocks(a.num_neurons, threads, [&](std::uint64_t first, std::uint64_t count) {
    std::vector<float> row_a(a.hidden);
    std::vector<float> row_b(a.hidden);
    for (std::uint64_t n = first; n < first + count; ++n) {
      for (const auto& [own, other] : {std::pair(&a.gate, &b.gate), std::pair(&a.up, &b.up)}) {
        merge::decode_elements(own->dtype, element(*own, n * a.hidden), row_a);
        merge::decode_elements(other->dtype, element(*other, order[n] * b.hidden), row_b);
        result[n] += dot(row_a.data(), row_b.data(), a.hidden);
      }
    }
  });
  // The columns of `b` may lie anywhere in its rows, which every block decodes whole: few blocks.
  const auto per_thread = static_cast<std::uint64_t>(std::max(1, threads));
  const auto add_down = [&](std::uint64_t first, std::uint64_t count) {
    std::vector<float> row_a(count);
    std::vector<float> row_b(b.num_neurons);
    for (std::uint64_t h = 0; h < a.hidden; ++h) {
      merge::decode_elements(a.down.dtype, element(a.down, h * a.num_neurons + first), row_a);
      merge::decode_elements(b.down.dtype, element(b.down, h * b.num_neurons), row_b);
      for (std::uint64_t n = 0; n < count; ++n) {
        result[first + n] += static_cast<double>(row_a[n]) * static_cast<double>(row_b[order[first + n]]);
      }
    }
  };
  for_blocks(a.num_neurons, threads, add_down, std::max(kNeuronBlock, (a.num_neurons + per_thread - 1) / per_thread));
  return result;
}

}  // namespace moeweld::align
