#include <array>

#include "merge/methods.h"

namespace moeweld::merge {

std::span<const MethodRow> method_table() {
  static const std::array<MethodRow, 5> table{passthrough_method(), linear_method(), slerp_method(), task_arithmetic_method(), ties_method()};
  return table;
}

const MethodRow* find_method(std::string_view name) {
  for (const MethodRow& method : method_table()) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

std::span<const std::string_view> announced_methods() {
  static constexpr std::array<std::string_view, 15> kNames{"dare_ties",        "dare_linear", "della",      "della_linear", "breadcrumbs",
                                                           "breadcrumbs_ties", "nuslerp",     "multislerp", "karcher",      "model_stock",
                                                           "sce",              "ram",         "ramplus_tl", "nearswap",     "arcee_fusion"};
  return kNames;
}

}  // namespace moeweld::merge
