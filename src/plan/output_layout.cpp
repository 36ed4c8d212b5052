#include "plan/output_layout.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <span>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "moeweld/base/checked.h"
#include "moeweld/base/error.h"
#include "moeweld/formats/safetensors.h"
#include "moeweld/merge/block_scales.h"
#include "moeweld/plan/schedule.h"

namespace moeweld::plan {
namespace {

std::uint64_t tensor_bytes(const OutputTensor& tensor) {
  const auto bytes = checked_multiply<std::uint64_t>(num_elements(tensor.shape), size_bytes(tensor.dtype));
  if (!bytes) throw Error(ErrorCode::kInvalidInput, "An output tensor would have more than 2^64 bytes.", {}, tensor.name);
  return *bytes;
}

constexpr std::string_view kScaleEnding = "_scale_inv";

/// A file of this much has its data begin at a whole kCutAlignmentBytes, for which the header grows by half as much on average.
constexpr std::uint64_t kAlignedFileBytes = 128 * kCutAlignmentBytes;
constexpr int kWholeAlignments = 64;  ///< ranks before any width

/// Wider elements come first, so that all are naturally aligned. Codes with their scales come between wider elements and BF16: aligned, if
/// the codes fill whole words. Where `whole_first`, what fills whole kCutAlignmentBytes comes before all: as most matrices of most models
/// do, these then begin and end where ranks may share the work, and no tensor is on two of them.
int alignment_rank(const OutputTensor& tensor, bool in_pair, bool whole_first) {
  if (in_pair) return 3;
  const std::uint64_t size = tensor_bytes(tensor);
  if (whole_first && size > 0 && size % kCutAlignmentBytes == 0) return kWholeAlignments;
  return static_cast<int>(size_bytes(tensor.dtype));
}

/// The tensors of one file in the order of their bytes, scales as tensors of their own.
std::vector<OutputTensor> in_file_order(std::span<OutputTensor> tensors, bool whole_first) {
  std::vector<std::pair<int, OutputTensor>> ranked;
  for (OutputTensor& tensor : tensors) {
    std::optional<Operation> scales = std::exchange(tensor.scales, std::nullopt);
    const bool in_pair = scales && tensor_bytes(tensor) % sizeof(float) == 0;
    const Shape shape = tensor.shape;
    const std::string name = tensor.name;
    const int rank = alignment_rank(tensor, in_pair, whole_first);
    ranked.emplace_back(rank, std::move(tensor));
    if (!scales) continue;
    OutputTensor own;
    own.name = name + std::string(kScaleEnding);
    own.dtype = DType::kF32;
    own.shape = {merge::num_scale_blocks(shape.at(0)), merge::num_scale_blocks(shape.at(1))};
    own.parts.push_back(std::move(*scales));
    own.parts.back().name = own.name;
    const int own_rank = alignment_rank(own, in_pair, whole_first);
    ranked.emplace_back(own_rank, std::move(own));
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<OutputTensor> result;
  result.reserve(ranked.size());
  for (auto& [rank, tensor] : ranked) result.push_back(std::move(tensor));
  return result;
}

/// Scales find their codes.
void link_scales(MergePlan& plan) {
  std::unordered_map<std::string_view, std::uint32_t> codes;
  for (std::uint32_t i = 0; i < plan.operations.size(); ++i) {
    if (plan.operations[i].block_scaled) codes.emplace(plan.tensors[plan.operations[i].tensor].name, i);
  }
  for (Operation& operation : plan.operations) {
    if (operation.kind != Operation::Kind::kBlockScales) continue;
    std::string_view name = plan.tensors[operation.tensor].name;
    name.remove_suffix(kScaleEnding.size());
    operation.codes = codes.at(name);
  }
}

/// What an HDF5 file needs before its data: a dataset takes some 350 bytes and its name, which stands in the group's heap and in its index;
/// the root's attributes take up to 384 KiB (src/hdf5/create_file.cpp) and as much again in their heap.
std::uint64_t hdf5_metadata_bytes(const std::vector<OutputTensor>& tensors) {
  std::uint64_t sum = kMiB;
  for (const OutputTensor& tensor : tensors) {
    sum += 512 + 2 * tensor.name.size();
    if (tensor.scales) sum += 512 + 2 * (tensor.name.size() + kScaleEnding.size());
  }
  return round_up(sum, kMiB);
}

}  // namespace

void check_tensors(const std::vector<OutputTensor>& tensors) {
  std::unordered_set<std::string_view> names;
  names.reserve(tensors.size());
  for (const OutputTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second) throw Error(ErrorCode::kInternal, "Two output tensors have this name.", {}, tensor.name);
    std::uint64_t covered = 0;
    for (const Operation& part : tensor.parts) covered += part.result_bytes();
    if (covered != tensor_bytes(tensor)) {
      throw Error(ErrorCode::kInternal,
                  "The operations of an output tensor yield " + std::to_string(covered) + " bytes, the tensor has " +
                      std::to_string(tensor_bytes(tensor)) + ".",
                  {}, tensor.name);
    }
  }
}

std::vector<std::size_t> shard_borders(const std::vector<OutputTensor>& tensors, std::uint64_t shard_size_bytes) {
  std::vector<std::size_t> borders{0};
  std::uint64_t filled = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::uint64_t size = tensor_bytes(tensors[i]) + (tensors[i].scales ? tensors[i].scales->result_bytes() : 0);
    if (i != borders.back() && (filled > shard_size_bytes || size > shard_size_bytes - filled)) {
      borders.push_back(i);
      filled = 0;
    }
    filled += size;
  }
  if (!tensors.empty()) borders.push_back(tensors.size());
  return borders;
}

std::string shard_name(std::size_t index, std::size_t count) {
  if (count == 1) return "model.safetensors";
  char name[80];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

void append_file(std::string name, std::span<OutputTensor> tensors, MergePlan& plan, std::uint64_t own_metadata_bytes) {
  std::uint64_t data_bytes = 0;
  for (const OutputTensor& tensor : tensors) data_bytes += tensor_bytes(tensor);
  const bool is_aligned = data_bytes >= kAlignedFileBytes;
  std::vector<OutputTensor> in_file = in_file_order(tensors, is_aligned);
  std::vector<formats::TensorLayout> layout;
  layout.reserve(in_file.size());
  for (const OutputTensor& tensor : in_file) layout.push_back({tensor.name, tensor.dtype, tensor.shape});

  PlannedOutputFile file;
  file.name = std::move(name);
  file.own_metadata_bytes = own_metadata_bytes;
  if (own_metadata_bytes == 0)
    file.header = formats::serialize_safetensors_header(layout, {}, is_aligned ? kCutAlignmentBytes : formats::kDataAlignment);
  std::uint64_t position = own_metadata_bytes == 0 ? file.header.size() : own_metadata_bytes;
  for (OutputTensor& tensor : in_file) {
    const std::uint64_t size = tensor_bytes(tensor);
    std::uint64_t offset = 0;
    for (Operation& part : tensor.parts) {
      part.tensor = static_cast<std::uint32_t>(plan.tensors.size());
      part.offset_bytes = offset;
      offset += part.result_bytes();
      plan.operations.push_back(std::move(part));
    }
    plan.tensors.push_back({std::move(tensor.name), tensor.dtype, std::move(tensor.shape),
                            static_cast<std::uint32_t>(plan.output_files.size()), position, size});
    position += size;
  }
  file.size_bytes = position;
  plan.output_files.push_back(std::move(file));
}

void lay_out(std::vector<OutputTensor> tensors, const PlanOptions& options, MergePlan& plan) {
  check_tensors(tensors);
  const bool is_hdf5 = options.format == OutputFormat::kHdf5;
  const std::vector<std::size_t> borders =
      shard_borders(tensors, is_hdf5 ? std::numeric_limits<std::uint64_t>::max() : options.out_shard_size_bytes);
  const std::uint64_t metadata_bytes = is_hdf5 ? hdf5_metadata_bytes(tensors) : 0;
  const std::size_t num_shards = borders.size() - 1;
  plan.output_files.clear();
  plan.tensors.clear();
  plan.operations.clear();
  plan.tensors.reserve(tensors.size());
  std::size_t num_operations = 0;
  for (const OutputTensor& tensor : tensors) num_operations += tensor.parts.size();
  plan.operations.reserve(num_operations);
  for (std::size_t shard = 0; shard < num_shards; ++shard) {
    append_file(is_hdf5 ? "model.h5" : shard_name(shard, num_shards),
                std::span(tensors).subspan(borders[shard], borders[shard + 1] - borders[shard]), plan, metadata_bytes);
  }
  link_scales(plan);
}

}  // namespace moeweld::plan
