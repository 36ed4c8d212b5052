#include "plan/several_outputs.h"

#include <algorithm>
#include <utility>

#include "moeweld/base/error.h"
#include "moeweld/plan/repeated_reads.h"

namespace moeweld::plan {

namespace {

/// Borders of own files: as shards, and so that what a file's tensors share with other models' fits what exec keeps.
std::vector<std::size_t> own_borders(const std::vector<std::vector<OutputTensor>>& own, std::uint64_t shard_size_bytes) {
  const std::vector<OutputTensor>& first = own.front();
  std::vector<std::size_t> borders;
  std::uint64_t kept_bytes = 0;
  const std::vector<std::size_t> shards = shard_borders(first, shard_size_bytes);
  for (std::size_t i = 0; i < first.size(); ++i) {
    std::uint64_t bytes = 0;
    if (own.size() > 1) bytes = common_leaf_bytes(first[i].parts, own[1][i].parts);
    if (std::binary_search(shards.begin(), shards.end(), i) || kept_bytes + bytes > kKeptReadBytes) {
      borders.push_back(i);
      kept_bytes = 0;
    }
    kept_bytes += bytes;
  }
  if (!first.empty()) borders.push_back(first.size());
  return borders;
}

}  // namespace

void lay_out_several(const std::vector<std::string>& outputs, std::vector<OutputTensor> common, std::vector<std::vector<OutputTensor>> own,
                     const PlanOptions& options, MergePlan& plan) {
  if (options.format != OutputFormat::kSafetensors) {
    throw Error(ErrorCode::kUnsupported,
                "several models from one read are written as safetensors; leave --format out, and run moeweld convert on each of them");
  }
  check_tensors(common);
  for (const std::vector<OutputTensor>& tensors : own) check_tensors(tensors);
  const std::vector<std::size_t> of_common = shard_borders(common, options.out_shard_size_bytes);
  const std::vector<std::size_t> of_own = own_borders(own, options.out_shard_size_bytes);
  const std::size_t num_common = of_common.size() - 1;
  const std::size_t num_shards = num_common + of_own.size() - 1;
  plan.outputs = outputs;
  plan.output_files.clear();
  plan.tensors.clear();
  plan.operations.clear();
  for (std::size_t shard = 0; shard < num_common; ++shard) {
    const std::string name = "/" + shard_name(shard, num_shards);
    append_file(outputs.front() + name, std::span(common).subspan(of_common[shard], of_common[shard + 1] - of_common[shard]), plan);
    for (std::size_t i = 1; i < outputs.size(); ++i) plan.output_files.back().copies.push_back(outputs[i] + name);
  }
  for (std::size_t group = 0; group + 1 < of_own.size(); ++group) {
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      append_file(outputs[i] + "/" + shard_name(num_common + group, num_shards),
                  std::span(own[i]).subspan(of_own[group], of_own[group + 1] - of_own[group]), plan);
    }
  }
}

}  // namespace moeweld::plan
