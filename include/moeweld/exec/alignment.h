#pragma once
/// Which experts and neurons of merged mixtures belong together: found from tensor data before the first item.

#include <cstdint>
#include <string>
#include <vector>

#include "moeweld/base/peers.h"
#include "moeweld/exec/execute.h"
#include "moeweld/exec/manifest.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/storage/storage.h"

namespace moeweld::exec {

/// What was found for one layer and one model.
struct AlignedLayer {
  std::uint32_t alignment = 0;  ///< index into MergePlan::alignments
  std::uint32_t model = 0;      ///< index into Alignment::models
  /// Cosines of all the layer's experts together with those of the reference, as the model comes and in the order found: of router rows
  /// less their mean, and of weights (NaN where they are not looked at).
  double router_before = 0;
  double router_after = 0;
  double weights_before = 0;
  double weights_after = 0;
  std::uint32_t experts_moved = 0;
  std::uint64_t neurons_moved = 0;  ///< that are at another place in their expert
};

struct ExpertOrders {
  std::vector<std::uint32_t> orders;  ///< as MergePlan::orders
  std::vector<AlignedLayer> layers;   ///< in the order of alignments and their models
};

/// Fills the plan's alignments. Layers are shared out to ranks; every rank gets all. Collective; throws the same Error on every rank:
/// NaN or infinity in router rows or experts.
ExpertOrders find_expert_orders(Peers& peers, Storage& storage, const plan::MergePlan& plan, const ExecuteOptions& options);

/// The most memory that takes on a rank, beyond the plan.
std::uint64_t expert_order_bytes(const plan::MergePlan& plan, int threads);

/// How alike experts of a layer are, each of the first model with each of the second (or of the same): cosines, row-major.
struct LayerSimilarities {
  int layer = 0;
  std::uint32_t num_experts = 0;
  std::vector<float> router;
  std::vector<float> weights;
  bool is_sketched = false;  ///< weights off by about 0.004
};

/// For every layer of the plan's alignments, of one or two sources. Collective, as find_expert_orders.
std::vector<LayerSimilarities> find_similarities(Peers& peers, Storage& storage, const plan::MergePlan& plan,
                                                 const ExecuteOptions& options);

/// The orders in the manifest's words.
std::vector<ManifestAlignment> describe_orders(const plan::MergePlan& plan, const ExpertOrders& orders);

/// Name of a model of an alignment, as the config writes it.
std::string aligned_model(const plan::MergePlan& plan, const plan::Alignment& alignment, std::uint32_t model);

}  // namespace moeweld::exec
