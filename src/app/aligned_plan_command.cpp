#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>

#include "app/interruption.h"
#include "app/layer_progress.h"
#include "app/run.h"
#include "moeweld/base/text.h"
#include "moeweld/exec/alignment.h"
#include "moeweld/plan/plan_report.h"

namespace moeweld::app {

namespace {

using formats::Json;

std::string change(double before, double after) {
  return std::isnan(before) ? std::string("-") : fmt::format("{:.4f} -> {:.4f}", before, after);
}

std::string shown_order(const exec::ManifestAlignment& alignment, std::size_t num_moved, bool verbose) {
  constexpr std::size_t kMostShown = 16;
  if (num_moved == 0) return "as it is";
  std::string text;
  const std::size_t count = verbose ? alignment.experts.size() : std::min(kMostShown, alignment.experts.size());
  for (std::size_t i = 0; i < count; ++i) text += (i == 0 ? "" : ",") + std::to_string(alignment.experts[i]);
  return text + (count < alignment.experts.size() ? ",..." : "");
}

/// A line for each layer and model.
std::string orders_text(const exec::ExpertOrders& orders, const std::vector<exec::ManifestAlignment>& described, bool verbose) {
  std::string text = fmt::format("\n{:>5}  {:>7}  {:>7}  {:>20}  {:>20}  model, order of experts\n", "layer", "experts", "neurons",
                                 "router similarity", "weight similarity");
  fmt::format_to(std::back_inserter(text), "{:>5}  {:>7}  {:>7}\n", "", "moved", "moved");
  for (std::size_t i = 0; i < described.size(); ++i) {
    const exec::ManifestAlignment& alignment = described[i];
    const exec::AlignedLayer& layer = orders.layers[i];
    fmt::format_to(std::back_inserter(text), "{:>5}  {:>7}  {:>7}  {:>20}  {:>20}  {}: {}\n", alignment.layer, layer.experts_moved,
                   alignment.neurons.empty() ? std::string("-") : std::to_string(layer.neurons_moved),
                   change(alignment.router_before, alignment.router_after), change(alignment.weights_before, alignment.weights_after),
                   printable(alignment.model, 100), shown_order(alignment, layer.experts_moved, verbose));
  }
  return text;
}

}  // namespace

int run_aligned_plan(Peers& peers, Storage& storage, const Options& options) {
  const plan::MergePlan plan = share_plan(peers, [&] { return plan_configuration(storage, options); });
  const bool speaks = peers.rank() == 0;
  exec::ExecuteOptions run;
  run.memory_limit_bytes = options.memory_limit_bytes;
  run.threads = options.threads;
  run.io = options.io;
  const std::uint64_t memory = exec::planned_memory_bytes(plan, run.memory_limit_bytes, run.threads);
  if (speaks && !options.json) {
    fmt::print("{}", plan::plan_text(plan, plan::make_schedule(plan, std::max(1, options.ranks)), memory, options.verbose));
    if (plan.alignments.empty()) fmt::print("--align has nothing to find: the configuration does not ask for align_experts\n");
    std::fflush(stdout);
  }
  LayerProgress layers(options.log_json, !speaks || options.quiet || options.json);
  run.on_layer = [&](std::size_t step, std::size_t num_steps) {
    stop_if_interrupted();
    layers.update(step, num_steps);
  };
  const exec::ExpertOrders orders = exec::find_expert_orders(peers, storage, plan, run);
  layers.finish();
  if (!speaks) return 0;
  const std::vector<exec::ManifestAlignment> described = exec::describe_orders(plan, orders);
  if (options.json) {
    Json json = {{"schema", "moeweld.alignment/1"}, {"alignments", Json::array()}};
    for (const exec::ManifestAlignment& alignment : described) json["alignments"].push_back(exec::to_json(alignment));
    fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  } else if (!described.empty()) {
    fmt::print("{}", orders_text(orders, described, options.verbose));
  }
  return 0;
}

}  // namespace moeweld::app
