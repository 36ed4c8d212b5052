#pragma once
/// The figures that a report shows of each tensor, and tensors by role, layer and expert.

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "app/layer_map.h"
#include "moeweld/hdf5/statistics_file.h"

namespace moeweld::app {

/// A figure that a tensor does not have.
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

struct Figure {
  const char* title;
  const char* meaning;
  NumberStyle style;
  bool least_is_most = false;  ///< the lowest values are what one looks for
  enum class Colours { kFromZero, kToOne, kLowestToHighest, kLogarithmic } colours = Colours::kLowestToHighest;
  double (*of)(const exec::TensorStatistics& tensor);
  const char* extremes;  ///< what its most extreme tensors are called; null: not listed
};

/// In the order of the page.
const std::vector<Figure>& figures();

/// Tensors of one role; several outputs of one run count as experts.
struct Role {
  std::string pattern;
  std::string label;                                  ///< without what all roles have in common
  std::map<int, std::map<int, std::size_t>> tensors;  ///< by layer, then expert (-1: none): index into StatisticsFile::tensors
  std::set<int> experts;
};

/// Those with layers, in the file's order.
std::vector<Role> roles_of(const hdf5::StatisticsFile& file);

/// Name and, where a run writes several models, which of them.
std::string full_name(const exec::TensorStatistics& tensor);

}  // namespace moeweld::app
