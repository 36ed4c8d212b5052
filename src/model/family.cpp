#include "moeweld/model/family.h"

#include <algorithm>

#include "model/family_tables.h"
#include "moeweld/model/tensor_name.h"

namespace moeweld::model {

std::span<const Family> families() {
  static const std::vector<Family> table = [] {
    std::vector<Family> result = dense_families();
    for (std::vector<Family> more : {mixture_families(), deepseek_families(), granite_families()}) {
      std::move(more.begin(), more.end(), std::back_inserter(result));
    }
    return result;
  }();
  return table;
}

const Family* find_family(std::string_view architecture) {
  for (const Family& family : families()) {
    if (std::find(family.architectures.begin(), family.architectures.end(), architecture) != family.architectures.end()) return &family;
  }
  return nullptr;
}

const TensorRow* find_row(const Family& family, std::string_view role) {
  const auto found = std::find_if(family.tensors.begin(), family.tensors.end(), [&](const TensorRow& row) { return row.role == role; });
  return found == family.tensors.end() ? nullptr : &*found;
}

std::string tensor_name(const Family* family, const TensorKey& key) {
  const TensorRow* row = family == nullptr ? nullptr : find_row(*family, key.role);
  return fill_pattern(row == nullptr ? std::string_view(key.role) : row->name, key.layer, key.expert);
}

}  // namespace moeweld::model
