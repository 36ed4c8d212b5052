#include "moeweld/exec/expert_measures.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "exec/exchange.h"
#include "exec/view_reader.h"
#include "moeweld/merge/gram.h"
#include "moeweld/merge/measure.h"
#include "moeweld/merge/method.h"

namespace moeweld::exec {

namespace {

using plan::MixtureSurvey;

std::vector<double> norms_of_rows(const MixtureSurvey::Layer& layer, std::uint32_t num_rows, ViewReader& reader) {
  const plan::SourceView& view = layer.router;
  std::vector<std::byte> bytes(view.columns * size_bytes(view.dtype));
  std::vector<double> row(view.columns);
  merge::Task task;
  task.shape = {view.columns};
  task.output_dtype = DType::kF64;
  task.inputs = {{view.dtype, {std::numeric_limits<double>::quiet_NaN()}}};
  std::vector<double> norms;
  for (std::uint32_t expert = 0; expert < num_rows; ++expert) {
    reader.read(view, expert * view.columns, view.columns, bytes.data());
    const std::byte* input = bytes.data();
    merge::apply_elements(*merge::find_method("passthrough"), task, {},
                          {.first_element = 0, .num_elements = row.size(), .inputs = std::span(&input, 1)},
                          reinterpret_cast<std::byte*>(row.data()));
    double sum = 0;
    for (const double value : row) sum += value * value;
    if (!std::isfinite(sum)) {
      throw Error(ErrorCode::kInvalidInput,
                  "has values that are not finite in the row of expert " + std::to_string(expert) +
                      ", so its norm says nothing; mend the model, or give scores",
                  {}, layer.router_name);
    }
    norms.push_back(std::sqrt(sum));
  }
  return norms;
}

/// Gram matrix of the experts of a layer, upper triangle row by row.
class ExpertGram {
 public:
  ExpertGram(std::size_t num_experts, std::uint64_t memory_limit_bytes, int threads) : num_experts_(num_experts) {
    const std::uint64_t part_bytes = kPartElements * num_experts * sizeof(double);
    parts_.resize(std::clamp<std::size_t>(memory_limit_bytes / 2 / part_bytes, 1, static_cast<std::size_t>(std::max(1, threads))));
  }

  std::vector<double> of(const MixtureSurvey::Layer& layer, ViewReader& reader) {
    const std::size_t num_matrices = layer.experts.size() / num_experts_;
    std::vector<double> gram(num_experts_ * (num_experts_ + 1) / 2);
    for (std::size_t matrix = 0; matrix < num_matrices; ++matrix) {
      const std::uint64_t num_elements = layer.experts[matrix].num_elements;
      for (std::uint64_t first = 0; first < num_elements; first += parts_.size() * kPartElements) {
        const std::size_t num_parts = read(layer, matrix, num_matrices, first, num_elements, reader);
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(num_parts))
        for (std::size_t i = 0; i < num_parts; ++i) measure(parts_[i]);
        for (std::size_t i = 0; i < num_parts; ++i) {
          for (std::size_t entry = 0; entry < gram.size(); ++entry) gram[entry] += parts_[i].sums[entry];
        }
      }
    }
    return gram;
  }

 private:
  /// Elements of each expert in a part: sums are formed by part, so this decides their last bits.
  static constexpr std::uint64_t kPartElements = 1 << 15;

  struct Part {
    merge::Task task;
    std::uint64_t num_elements = 0;
    std::vector<std::vector<double>> bytes;  ///< by expert; doubles for their alignment
    std::vector<double> sums;
  };

  std::size_t read(const MixtureSurvey::Layer& layer, std::size_t matrix, std::size_t num_matrices, std::uint64_t first,
                   std::uint64_t num_elements, ViewReader& reader) {
    std::size_t num_parts = 0;
    for (Part& part : parts_) {
      if (first >= num_elements) break;
      ++num_parts;
      part.num_elements = std::min(kPartElements, num_elements - first);
      part.bytes.resize(num_experts_);
      part.task = {};
      part.task.shape = {part.num_elements};
      part.task.output_dtype = DType::kF64;
      for (std::size_t expert = 0; expert < num_experts_; ++expert) {
        const plan::SourceView& view = layer.experts[expert * num_matrices + matrix];
        part.bytes[expert].resize(kPartElements);
        reader.read(view, first, part.num_elements, reinterpret_cast<std::byte*>(part.bytes[expert].data()));
        part.task.inputs.push_back({view.dtype, {}});
      }
      first += part.num_elements;
    }
    return num_parts;
  }

  static void measure(Part& part) {
    std::vector<const std::byte*> inputs;
    for (const std::vector<double>& bytes : part.bytes) inputs.push_back(reinterpret_cast<const std::byte*>(bytes.data()));
    part.sums.clear();
    merge::measure_gram(part.task, {.first_element = 0, .num_elements = part.num_elements, .inputs = inputs}, part.sums);
  }

  const std::size_t num_experts_;
  std::vector<Part> parts_;
};

std::vector<double> cosines(const std::vector<double>& gram, std::size_t n, const MixtureSurvey::Layer& layer) {
  const auto entry = [&](std::size_t i, std::size_t j) { return gram[i * n - i * (i + 1) / 2 + j]; };
  std::vector<double> result(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    if (!std::isfinite(entry(i, i))) {
      throw Error(ErrorCode::kInvalidInput,
                  "belongs to a layer whose expert " + std::to_string(i) + " has values that are not finite, so experts cannot be compared",
                  {}, layer.router_name);
    }
    for (std::size_t j = i; j < n; ++j) {
      const double lengths = std::sqrt(entry(i, i)) * std::sqrt(entry(j, j));
      result[i * n + j] = result[j * n + i] = lengths > 0 ? entry(i, j) / lengths : 0;
    }
  }
  return result;
}

/// `measure` of each layer, shared out to the ranks.
std::map<int, std::vector<double>> of_all_layers(
    Peers& peers, Storage& storage, const MixtureSurvey& survey, IoMode io,
    const std::function<std::vector<double>(const MixtureSurvey::Layer&, ViewReader&)>& measure) {
  const auto gathered = exchange(peers, [&] {
    plan::MergePlan files;
    files.input_files = survey.input_files;
    InputFiles open(storage, files, io);
    ViewReader reader(open);
    std::vector<std::vector<double>> own;
    for (std::size_t i = static_cast<std::size_t>(peers.rank()); i < survey.layers.size(); i += static_cast<std::size_t>(peers.size()))
      own.push_back(measure(survey.layers[i], reader));
    return to_archive(own);
  });
  std::map<int, std::vector<double>> result;
  for (std::size_t rank = 0; rank < gathered.size(); ++rank) {
    auto own = from_archive<std::vector<std::vector<double>>>(gathered[rank]);
    for (std::size_t i = 0; i < own.size(); ++i) result[survey.layers.at(rank + i * gathered.size()).layer] = std::move(own[i]);
  }
  return result;
}

}  // namespace

plan::ExpertScores router_row_norms(Peers& peers, Storage& storage, const MixtureSurvey& survey, IoMode io) {
  return of_all_layers(peers, storage, survey, io, [&](const MixtureSurvey::Layer& layer, ViewReader& reader) {
    return norms_of_rows(layer, survey.num_experts, reader);
  });
}

plan::ExpertSimilarities expert_similarities(Peers& peers, Storage& storage, const MixtureSurvey& survey, IoMode io,
                                             std::uint64_t memory_limit_bytes, int threads) {
  ExpertGram gram(survey.num_experts, memory_limit_bytes, threads);
  return of_all_layers(peers, storage, survey, io, [&](const MixtureSurvey::Layer& layer, ViewReader& reader) {
    return cosines(gram.of(layer, reader), survey.num_experts, layer);
  });
}

}  // namespace moeweld::exec
