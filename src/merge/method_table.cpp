#include <algorithm>
#include <array>

#include "merge/methods/rows.h"
#include "moeweld/merge/method.h"

namespace moeweld::merge {

std::span<const MethodRow> method_table() {
  static const std::array rows = {passthrough_row(), linear_row(),           slerp_row(),          task_arithmetic_row(),
                                  ties_row(),        expert_variation_row(), router_weighted_row()};
  return rows;
}

const MethodRow* find_method(std::string_view name) {
  const auto table = method_table();
  const auto found = std::find_if(table.begin(), table.end(), [&](const MethodRow& row) { return row.name == name; });
  return found == table.end() ? nullptr : &*found;
}

std::span<const std::string_view> announced_methods() {
  static constexpr std::array<std::string_view, 15> kNames = {
      "dare_ties", "dare_linear", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties", "nuslerp",     "multislerp",
      "karcher",   "model_stock", "sce",   "ram",          "ramplus_tl",  "nearswap",         "arcee_fusion"};
  return kNames;
}

}  // namespace moeweld::merge
