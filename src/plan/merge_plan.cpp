#include "moeweld/plan/merge_plan.h"

#include <string>

#include "moeweld/base/error.h"
#include "moeweld/merge/block_scales.h"
#include "moeweld/plan/repeated_reads.h"
#include "plan/source_archive.h"

namespace moeweld::plan {

template <class Archive>
void serialize(Archive& archive, PlannedModel& value) {
  archive(value.reference, value.directory);
}
template <class Archive>
void serialize(Archive& archive, Operation::RandomFill& value) {
  archive(value.distribution, value.scale, value.stream, value.first_index);
}
template <class Archive>
void serialize(Archive& archive, Operation& value) {
  archive(value.kind, value.name, value.tensor, value.offset_bytes, value.method, value.task, value.sources, value.fill, value.repeat_rows,
          value.constant, value.slot, value.block_scaled, value.codes);
}
template <class Archive>
void serialize(Archive& archive, Slot& value) {
  archive(value.kind, value.state, value.name, value.shape, value.layers, value.embedding, value.embedding_shape, value.routers, value.base,
          value.num_shared, value.positive_ids, value.negative_ids);
}
template <class Archive>
void serialize(Archive& archive, Alignment& value) {
  archive(value.layer, value.match, value.neurons, value.num_experts, value.num_groups, value.num_neurons, value.hidden, value.reference,
          value.models, value.router, value.correction_bias, value.gate, value.up, value.down, value.first_order);
}
template <class Archive>
void serialize(Archive& archive, PlannedTensor& value) {
  archive(value.name, value.dtype, value.shape, value.file, value.begin, value.size_bytes);
}
template <class Archive>
void serialize(Archive& archive, PlannedOutputFile& value) {
  archive(value.name, value.header, value.size_bytes, value.copies, value.own_metadata_bytes);
}
template <class Archive>
void serialize(Archive& archive, AuxiliaryFile& value) {
  archive(value.action, value.name, value.content, value.source, value.reason);
}
template <class Archive>
void serialize(Archive& archive, DroppedTensor& value) {
  archive(value.model, value.name, value.num_elements, value.reason);
}
template <class Archive>
void serialize(Archive& archive, MergePlan& value) {
  archive(value.schema_version, value.title, value.config_path, value.config_text, value.seed, value.models, value.input_files,
          value.outputs, value.output_files, value.tensors, value.operations, value.slots, value.alignments, value.num_orders, value.orders,
          value.auxiliary_files, value.dropped, value.composition, value.about, value.notes, value.warnings, value.base_models);
}

std::uint64_t MergePlan::output_bytes() const {
  std::uint64_t sum = 0;
  for (const PlannedOutputFile& file : output_files) sum += file.size_bytes * file.num_places();
  return sum;
}

std::uint64_t MergePlan::num_files() const {
  std::uint64_t sum = 0;
  for (const PlannedOutputFile& file : output_files) sum += file.num_places();
  return sum;
}

std::uint64_t MergePlan::input_bytes() const {
  std::uint64_t sum = 0;
  for (const Operation& operation : operations) {
    for (const SourceView& source : operation.sources) sum += read_bytes(source);
  }
  for (const auto& [leaf, count] : repeated_leaves(*this)) sum -= (count - 1) * leaf.size_bytes;
  return sum;
}

std::uint64_t read_bytes(const SourceView& view) {
  std::uint64_t sum = 0;
  switch (view.kind) {
    case SourceView::Kind::kBytes:
      return view.num_elements * size_bytes(view.dtype);
    case SourceView::Kind::kZeros:
      return 0;
    case SourceView::Kind::kRows:
    case SourceView::Kind::kColumns:
    case SourceView::Kind::kBlockScaled:
      for (const SourceView& child : view.children) sum += read_bytes(child);
      return sum;
    case SourceView::Kind::kColumnSlice:
    case SourceView::Kind::kPermutedRows:
    case SourceView::Kind::kPermutedColumns:
      return read_bytes(view.children.at(0));
    case SourceView::Kind::kRowSlice: {
      const SourceView& child = view.children.at(0);
      if (child.num_elements == 0) return 0;
      return static_cast<std::uint64_t>(static_cast<double>(read_bytes(child)) * static_cast<double>(view.num_elements) /
                                        static_cast<double>(child.num_elements));
    }
  }
  return sum;
}

const SourceView& first_leaf(const SourceView& view) {
  const SourceView* leaf = &view;
  while (leaf->kind != SourceView::Kind::kBytes) leaf = &leaf->children.at(0);
  return *leaf;
}

std::uint64_t Operation::result_elements() const {
  if (kind != Kind::kBlockScales) return task.elements();
  return merge::num_scale_blocks(task.shape.at(0)) * merge::num_scale_blocks(task.shape.at(1));
}

Destination destination(const MergePlan& plan, const Operation& operation) {
  const PlannedTensor& tensor = plan.tensors[operation.tensor];
  return {.file = tensor.file, .begin = tensor.begin + operation.offset_bytes, .size_bytes = operation.result_bytes()};
}

Digest identity_digest(const MergePlan& plan) {
  MergePlan work = plan;
  work.config_path.clear();
  work.notes.clear();
  work.warnings.clear();
  return digest_of(encode(work));
}

std::vector<std::byte> encode(const MergePlan& plan) { return to_archive(plan); }

MergePlan decode(std::span<const std::byte> bytes) {
  int version = 0;
  ArchiveReader header(bytes);
  header(version);
  if (version != kPlanSchemaVersion) {
    throw Error(ErrorCode::kPeerFailed, "the plan that rank 0 sent has schema " + std::to_string(version) + ", this program reads schema " +
                                            std::to_string(kPlanSchemaVersion) + ": the ranks run different versions of moeweld");
  }
  return from_archive<MergePlan>(bytes);
}

}  // namespace moeweld::plan
