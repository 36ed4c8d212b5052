#include "model/block_scales.h"

#include <string>
#include <string_view>

#include "model/config_fields.h"
#include "moeweld/base/shape.h"
#include "moeweld/model/catalog.h"

namespace moeweld::model {
namespace {

using formats::Checkpoint;
using formats::CheckpointTensor;

constexpr std::size_t kMaxListed = 20;
constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kScaleInv = "_scale_inv";
constexpr std::string_view kScale = ".scale";

class Pairing {
 public:
  Pairing(const Checkpoint& checkpoint, ProblemList& problems) : checkpoint_(checkpoint), problems_(problems) {}

  BlockScales run() {
    const Json* quantization = field(text_config(checkpoint_.config), "quantization_config");
    if (quantization == nullptr) quantization = field(checkpoint_.config, "quantization_config");
    const bool says_fp8 = quantization != nullptr && text_field(*quantization, "quant_method") == "fp8";
    if (says_fp8) check_block_size(*quantization);
    for (std::uint32_t index = 0; index < checkpoint_.tensors.size(); ++index) add(index);
    if (says_fp8 || !scales_.of_weight.empty()) find_missing();
    scales_.is_announced = says_fp8;
    if (num_problems_ > kMaxListed) {
      problems_.add({ErrorCode::kInvalidInput,
                     std::to_string(num_problems_ - kMaxListed) + " more tensors have such problems with their scales.",
                     checkpoint_.directory,
                     0,
                     {}});
    }
    return std::move(scales_);
  }

 private:
  void problem(std::string message, const std::string& tensor) {
    if (++num_problems_ > kMaxListed) return;
    problems_.add({ErrorCode::kInvalidInput, std::move(message), checkpoint_.directory, 0, tensor});
  }

  void check_block_size(const Json& quantization) {
    if (const std::string format = text_field(quantization, "fmt"); !format.empty() && format != "e4m3") {
      problems_.add({ErrorCode::kUnsupported,
                     "says that FP8 codes are of format '" + format + "'; this version reads e4m3.",
                     checkpoint_.directory + "/config.json",
                     0,
                     {}});
    }
    const Json* size = field(quantization, "weight_block_size");
    if (size == nullptr || *size == Json::array({kScaleBlock, kScaleBlock})) return;
    problems_.add({ErrorCode::kUnsupported,
                   "says that FP8 blocks are " + size->dump() + "; this version reads blocks of 128 x 128.",
                   checkpoint_.directory + "/config.json",
                   0,
                   {}});
  }

  void add(std::uint32_t index) {
    const CheckpointTensor& scale = checkpoint_.tensors[index];
    const bool is_inverse = scale.name.ends_with(kScaleInv);
    if (!is_inverse && !scale.name.ends_with(kScale)) return;
    const std::string weight_name = is_inverse ? scale.name.substr(0, scale.name.size() - kScaleInv.size())
                                               : scale.name.substr(0, scale.name.size() - kScale.size()) + std::string(kWeight);
    const auto found = checkpoint_.by_name.find(weight_name);
    const bool has_codes = found != checkpoint_.by_name.end() && checkpoint_.tensors[found->second].dtype == DType::kF8E4M3;
    if (!has_codes) {
      // Elsewhere ".scale" is an ordinary name.
      if (!weight_name.ends_with(kWeight) || !is_inverse) return;
      scales_.is_scale.insert(index);
      problem(found == checkpoint_.by_name.end() ? "holds scales, but there is no '" + weight_name + "'."
                                                 : "holds scales, but '" + weight_name + "' is " +
                                                       std::string(name(checkpoint_.tensors[found->second].dtype)) + " instead of F8_E4M3.",
              scale.name);
      return;
    }
    scales_.is_scale.insert(index);
    const CheckpointTensor& weight = checkpoint_.tensors[found->second];
    // A matrix, or those of all experts in one tensor.
    const std::size_t rank = weight.shape.size();
    Shape blocks = weight.shape;
    for (std::size_t i = rank >= 2 ? rank - 2 : rank; i < rank; ++i)
      blocks[i] = blocks[i] / kScaleBlock + (blocks[i] % kScaleBlock != 0 ? 1 : 0);
    if ((rank != 2 && rank != 3) || scale.shape != blocks) {
      problem("has shape " + to_string(scale.shape) + ", but the scales of '" + weight_name + "' " + to_string(weight.shape) +
                  (rank == 2 || rank == 3 ? " must be " + to_string(blocks) + ", one for 128 x 128 elements."
                                          : " cannot be blocks: only matrices have them."),
              scale.name);
    } else if (!is_arithmetic(scale.dtype)) {
      problem("is " + std::string(name(scale.dtype)) + ", but scales are F32, BF16, F16 or F64.", scale.name);
    }
    if (!scales_.of_weight.emplace(found->second, index).second) {
      problem("holds the same scales as '" + checkpoint_.tensors[scales_.of_weight.at(found->second)].name + "'.", scale.name);
    }
  }

  void find_missing() {
    for (std::uint32_t index = 0; index < checkpoint_.tensors.size(); ++index) {
      const CheckpointTensor& weight = checkpoint_.tensors[index];
      if (weight.dtype != DType::kF8E4M3 || scales_.of_weight.contains(index)) continue;
      problem("is F8_E4M3, but its scales are missing: no '" + weight.name + "_scale_inv' nor one that ends in '.scale'.", weight.name);
    }
  }

  const Checkpoint& checkpoint_;
  ProblemList& problems_;
  BlockScales scales_;
  std::size_t num_problems_ = 0;
};

}  // namespace

BlockScales pair_block_scales(const Checkpoint& checkpoint, ProblemList& problems) { return Pairing(checkpoint, problems).run(); }

}  // namespace moeweld::model
