#pragma once
/// In which order tensors of one layer are written.

#include <string_view>
#include <vector>

#include "moeweld/model/family.h"
#include "plan/tensor_matching.h"

namespace moeweld::plan {

/// By the family's table, experts one after the other; tensors that no table knows after them, by name, numbers in names by value.
void sort_tensors(std::vector<MatchedTensor>::iterator first, std::vector<MatchedTensor>::iterator last, const model::Family* family);

/// "layers.9" before "layers.10".
bool natural_less(std::string_view a, std::string_view b);

}  // namespace moeweld::plan
