#include "plan/tensor_order.h"

#include <algorithm>
#include <tuple>

namespace moeweld::plan {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view digits_at(std::string_view text, std::size_t at) {
  std::size_t end = at;
  while (end < text.size() && is_digit(text[end])) ++end;
  return text.substr(at, end - at);
}

int row_rank(const model::Family* family, std::string_view role) {
  if (family == nullptr) return 0;
  for (std::size_t i = 0; i < family->tensors.size(); ++i) {
    if (family->tensors[i].role == role) return static_cast<int>(i);
  }
  return static_cast<int>(family->tensors.size());
}

}  // namespace

bool natural_less(std::string_view a, std::string_view b) {
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      const std::string_view x = digits_at(a, i);
      const std::string_view y = digits_at(b, j);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
      i += x.size();
      j += y.size();
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i;
      ++j;
    }
  }
  return a.size() - i < b.size() - j;
}

void sort_tensors(std::vector<MatchedTensor>::iterator first, std::vector<MatchedTensor>::iterator last, const model::Family* family) {
  int first_expert_rank = family == nullptr ? 0 : static_cast<int>(family->tensors.size());
  for (auto tensor = first; tensor != last; ++tensor) {
    if (tensor->key.expert >= 0) first_expert_rank = std::min(first_expert_rank, row_rank(family, tensor->key.role));
  }
  struct Ranked {
    int group;
    int expert;
    int rank;
    MatchedTensor tensor;
  };
  std::vector<Ranked> ranked;
  ranked.reserve(static_cast<std::size_t>(last - first));
  for (auto tensor = first; tensor != last; ++tensor) {
    const int rank = row_rank(family, tensor->key.role);
    const bool in_table = family != nullptr && rank < static_cast<int>(family->tensors.size());
    const bool is_expert = in_table && tensor->key.expert >= 0;
    ranked.push_back({is_expert ? first_expert_rank : rank, is_expert ? tensor->key.expert : -1, rank, std::move(*tensor)});
  }
  std::sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    if (std::tie(a.group, a.expert, a.rank) != std::tie(b.group, b.expert, b.rank)) {
      return std::tie(a.group, a.expert, a.rank) < std::tie(b.group, b.expert, b.rank);
    }
    return natural_less(a.tensor.name, b.tensor.name);
  });
  for (Ranked& tensor : ranked) *first++ = std::move(tensor.tensor);
}

}  // namespace moeweld::plan
