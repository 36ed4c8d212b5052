#pragma once
/// Experts of one layer of one model, read as they are needed.

#include <cstdint>
#include <vector>

#include "exec/input_files.h"
#include "exec/view_reader.h"
#include "moeweld/align/expert_matrices.h"
#include "moeweld/plan/merge_plan.h"

namespace moeweld::exec {

/// Source `source` of an alignment's operations, as the model has it: in its own order. Holds one expert at a time.
class LayerExperts : public align::ExpertSource {
 public:
  LayerExperts(const plan::MergePlan& plan, const plan::Alignment& alignment, std::uint32_t source, InputFiles& files)
      : plan_(plan), alignment_(alignment), source_(source), reader_(files) {}

  const align::ExpertMatrices& load(std::uint32_t expert) override;

  /// [num_experts, hidden].
  std::vector<float> router();

  std::uint64_t read_bytes() const { return read_bytes_; }

 private:
  const plan::SourceView& own_view(std::uint32_t operation) const;
  align::StoredMatrix read(std::uint32_t operation, std::vector<std::byte>& bytes);

  const plan::MergePlan& plan_;
  const plan::Alignment& alignment_;
  const std::uint32_t source_;
  ViewReader reader_;
  std::uint32_t loaded_ = plan::kNoOperation;
  std::vector<std::byte> gate_;
  std::vector<std::byte> up_;
  std::vector<std::byte> down_;
  align::ExpertMatrices matrices_;
  std::uint64_t read_bytes_ = 0;
};

/// Bytes of the largest expert of any model of the alignment, as LayerExperts holds it.
std::uint64_t largest_expert_bytes(const plan::MergePlan& plan, const plan::Alignment& alignment);

}  // namespace moeweld::exec
