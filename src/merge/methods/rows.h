#pragma once
/// The rows of the method table, one file each.

#include "moeweld/merge/method.h"

namespace moeweld::merge {

MethodRow passthrough_row();
MethodRow linear_row();
MethodRow slerp_row();
MethodRow task_arithmetic_row();
MethodRow ties_row();
MethodRow expert_variation_row();
MethodRow router_weighted_row();

}  // namespace moeweld::merge
