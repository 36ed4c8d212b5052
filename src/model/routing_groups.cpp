#include "moeweld/model/routing_groups.h"

#include <string>

#include "model/config_fields.h"
#include "moeweld/base/error.h"

namespace moeweld::model {

std::uint32_t routing_groups(const Family& family, const formats::Json& config, std::uint32_t num_experts) {
  // DeepSeek-V3's own code has 8 groups of which 4 are chosen where config.json says nothing.
  const bool is_v3 = family.name == "deepseek_v3";
  const Json& text = text_config(config);
  if (text_field(text, "topk_method") == "greedy") return 1;
  const double groups = number_field(text, "n_group").value_or(is_v3 ? 8 : 1);
  const double chosen = number_field(text, "topk_group").value_or(is_v3 ? 4 : 1);
  if (groups <= 1 || chosen >= groups) return 1;
  const auto count = static_cast<std::uint32_t>(groups);
  if (groups > num_experts || num_experts % count != 0 || groups != count) {
    throw Error(ErrorCode::kInvalidInput, "has " + std::to_string(num_experts) + " experts in " + plain_number(groups).dump() +
                                              " groups ('n_group'), which is no whole number of experts in each.");
  }
  return count;
}

}  // namespace moeweld::model
