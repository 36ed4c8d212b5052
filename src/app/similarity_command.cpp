#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "app/heat_map.h"
#include "app/interruption.h"
#include "app/layer_progress.h"
#include "app/run.h"
#include "moeweld/base/text.h"
#include "moeweld/exec/alignment.h"
#include "moeweld/plan/similarity_plan.h"

namespace moeweld::app {

namespace {

using exec::LayerSimilarities;
using formats::Json;

/// Larger layers are summed up unless --verbose.
constexpr std::uint32_t kMostShown = 16;

std::vector<config::ModelReference> references(const Options& options) {
  std::vector<config::ModelReference> result{config::parse_model_reference(options.input)};
  if (!options.output.empty()) result.push_back(config::parse_model_reference(options.output));
  if (result.size() == 2 && result[0] == result[1]) result.pop_back();
  return result;
}

std::string matrix_text(const std::vector<float>& values, std::uint32_t size) {
  std::string text = fmt::format("{:>8}", "");
  for (std::uint32_t j = 0; j < size; ++j) fmt::format_to(std::back_inserter(text), "{:>8}", j);
  text += '\n';
  for (std::uint32_t i = 0; i < size; ++i) {
    fmt::format_to(std::back_inserter(text), "{:>8}", i);
    for (std::uint32_t j = 0; j < size; ++j) fmt::format_to(std::back_inserter(text), "{:>8.4f}", values[std::size_t{i} * size + j]);
    text += '\n';
  }
  return text;
}

/// The pair that is most alike, and the mean; of one model without the diagonal.
std::string summary(const std::vector<float>& values, std::uint32_t size, bool is_one_model) {
  double sum = 0;
  std::size_t count = 0;
  std::size_t best = size > 1 ? 1 : 0;
  for (std::size_t at = 0; at < values.size(); ++at) {
    if (is_one_model && at / size == at % size) continue;
    sum += values[at];
    ++count;
    if (values[at] > values[best]) best = at;
  }
  return fmt::format("mean {:.4f}, most alike {} and {} ({:.4f})", count == 0 ? 0.0 : sum / static_cast<double>(count), best / size,
                     best % size, values[best]);
}

void print_text(const std::vector<LayerSimilarities>& layers, const Options& options, bool is_one_model) {
  for (const LayerSimilarities& layer : layers) {
    for (const auto& [name, values] : {std::pair("weights", &layer.weights), std::pair("router rows", &layer.router)}) {
      const bool is_sketched = layer.is_sketched && values == &layer.weights;
      fmt::print("layer {}, {}{}: {}\n", layer.layer, name, is_sketched ? " (sketched, to 0.004)" : "",
                 summary(*values, layer.num_experts, is_one_model));
      if (layer.num_experts <= kMostShown || options.verbose) fmt::print("{}", matrix_text(*values, layer.num_experts));
    }
  }
}

Json matrix_json(const std::vector<float>& values, std::uint32_t size) {
  Json rows = Json::array();
  for (std::uint32_t i = 0; i < size; ++i) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(std::size_t{i} * size);
    rows.push_back(std::vector<float>(first, first + size));
  }
  return rows;
}

Json to_json(const std::vector<LayerSimilarities>& layers, const plan::MergePlan& plan) {
  Json json = {{"schema", "moeweld.similarity/1"}, {"models", Json::array()}, {"layers", Json::array()}};
  for (const plan::PlannedModel& model : plan.models) json["models"].push_back(model.reference);
  for (const LayerSimilarities& layer : layers) {
    json["layers"].push_back({{"layer", layer.layer},
                              {"experts", layer.num_experts},
                              {"weights", matrix_json(layer.weights, layer.num_experts)},
                              {"router", matrix_json(layer.router, layer.num_experts)},
                              {"sketched", layer.is_sketched}});
  }
  return json;
}

std::string to_svg(const std::vector<LayerSimilarities>& layers, const plan::MergePlan& plan) {
  std::string title = "Cosines of experts of " + plan.models.front().reference;
  if (plan.models.size() > 1) title += " (down) with those of " + plan.models.back().reference + " (across)";
  std::vector<HeatMap> maps;
  for (const LayerSimilarities& layer : layers) {
    maps.push_back({fmt::format("layer {}: weights", layer.layer), layer.num_experts, layer.weights});
    maps.push_back({fmt::format("layer {}: router rows", layer.layer), layer.num_experts, layer.router});
  }
  return heat_map_svg(title + "; blue -1, white 0, red 1", maps, 4);
}

}  // namespace

int run_similarity(Peers& peers, Storage& storage, const Options& options) {
  const std::vector<config::ModelReference> models = references(options);
  const plan::MergePlan plan = share_plan(peers, [&] {
    plan::ModelSource source(storage, hub_cache(options));
    return plan::make_similarity_plan(models, source);
  });
  const bool speaks = peers.rank() == 0;
  exec::ExecuteOptions run;
  run.memory_limit_bytes = options.memory_limit_bytes;
  run.threads = options.threads;
  run.io = options.io;
  LayerProgress progress(options.log_json, !speaks || options.quiet || options.json);
  run.on_layer = [&](std::size_t step, std::size_t num_steps) {
    stop_if_interrupted();
    progress.update(step, num_steps);
  };
  const std::vector<LayerSimilarities> layers = exec::find_similarities(peers, storage, plan, run);
  progress.finish();
  agree_on(peers, [&] {
    if (speaks && !options.svg_file.empty()) storage.write_text(options.svg_file, to_svg(layers, plan));
  });
  if (!speaks) return 0;
  if (options.json) {
    fmt::print("{}\n", to_json(layers, plan).dump(-1, ' ', false, Json::error_handler_t::replace));
  } else {
    print_text(layers, options, models.size() == 1);
  }
  return 0;
}

}  // namespace moeweld::app
