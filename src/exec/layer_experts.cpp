#include "exec/layer_experts.h"

#include <algorithm>

#include "moeweld/merge/decode.h"

namespace moeweld::exec {

const plan::SourceView& LayerExperts::own_view(std::uint32_t operation) const {
  const plan::SourceView* view = &plan_.operations[operation].sources[source_];
  // What waits for an order stands around what the model has.
  if (view->kind == plan::SourceView::Kind::kPermutedRows || view->kind == plan::SourceView::Kind::kPermutedColumns) {
    view = &view->children.front();
  }
  return *view;
}

align::StoredMatrix LayerExperts::read(std::uint32_t operation, std::vector<std::byte>& bytes) {
  const plan::SourceView& view = own_view(operation);
  bytes.resize(view.num_elements * size_bytes(view.dtype));
  read_bytes_ += reader_.read(view, 0, view.num_elements, bytes.data());
  return {view.dtype, bytes.data()};
}

const align::ExpertMatrices& LayerExperts::load(std::uint32_t expert) {
  if (expert == loaded_) return matrices_;
  matrices_.num_neurons = alignment_.num_neurons;
  matrices_.hidden = alignment_.hidden;
  matrices_.gate = read(alignment_.gate[expert], gate_);
  matrices_.up = read(alignment_.up[expert], up_);
  matrices_.down = read(alignment_.down[expert], down_);
  loaded_ = expert;
  return matrices_;
}

std::vector<float> LayerExperts::router() {
  std::vector<std::byte> bytes;
  const align::StoredMatrix stored = read(alignment_.router, bytes);
  std::vector<float> rows(plan_.operations[alignment_.router].sources[source_].num_elements);
  merge::decode_elements(stored.dtype, stored.data, rows);
  return rows;
}

std::uint64_t largest_expert_bytes(const plan::MergePlan& plan, const plan::Alignment& alignment) {
  std::uint64_t most = 0;
  for (std::size_t source = 0; source < plan.operations[alignment.gate.front()].sources.size(); ++source) {
    std::uint64_t bytes = 0;
    for (const std::vector<std::uint32_t>* experts : {&alignment.gate, &alignment.up, &alignment.down}) {
      const plan::SourceView& view = plan.operations[experts->front()].sources[source];
      bytes += view.num_elements * size_bytes(view.dtype) + view_scratch_bytes(view);
    }
    most = std::max(most, bytes);
  }
  return most;
}

}  // namespace moeweld::exec
