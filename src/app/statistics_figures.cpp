#include "app/statistics_figures.h"

#include <cmath>
#include <limits>
#include <string_view>

#include "moeweld/base/text.h"

namespace moeweld::app {

namespace {

using exec::TensorStatistics;

/// The end of a name says most of it, and short labels are made of that.
constexpr std::size_t kLongestLabel = 20000;

double change(const TensorStatistics& tensor) {
  if (tensor.reference < 0) return kNone;
  const double norm = tensor.inputs[static_cast<std::size_t>(tensor.reference)].norm;
  return norm > 0 ? tensor.result.difference_norm / norm : kNone;
}

double root_mean_square(const TensorStatistics& tensor) {
  double elements = 1;
  for (const std::uint64_t extent : tensor.shape) elements *= static_cast<double>(extent);
  const double count = elements - static_cast<double>(tensor.left_out);
  return count > 0 ? tensor.result.norm / std::sqrt(count) : kNone;
}

/// What stands before the first difference of all patterns, up to a dot.
std::string common_beginning(const std::vector<Role>& roles) {
  std::string common = roles.empty() ? "" : roles.front().pattern;
  for (const Role& role : roles) {
    std::size_t same = 0;
    while (same < common.size() && same < role.pattern.size() && common[same] == role.pattern[same]) ++same;
    common.resize(same);
  }
  // The layer's number is common to all, even of one role.
  constexpr std::string_view kHolder = "{layer}.";
  if (const std::size_t holder = common.find(kHolder); holder != std::string::npos) return common.substr(0, holder + kHolder.size());
  return common.substr(0, common.rfind('.') + 1);
}

std::string label_of(const std::string& pattern, std::size_t common) {
  std::string label = pattern.substr(common);
  constexpr std::string_view kWeight = ".weight";
  if (label.size() > kWeight.size() && label.ends_with(kWeight)) label.resize(label.size() - kWeight.size());
  constexpr std::string_view kExpert = "{expert}.";
  if (const std::size_t holder = label.find(kExpert); holder != std::string::npos) label.erase(holder, kExpert.size());
  return printable(label, kLongestLabel);
}

}  // namespace

const std::vector<Figure>& figures() {
  static const std::vector<Figure> kFigures = {
      {"Change", "‖result − reference‖ ⁄ ‖reference‖. The reference is the base; without a base, the first model.", NumberStyle::kShare,
       false, Figure::Colours::kFromZero, change, "Changed most"},
      {"Cosine", "of the result and the reference. Dark is far from it.", NumberStyle::kCosine, true, Figure::Colours::kToOne,
       [](const TensorStatistics& tensor) { return tensor.result.cosine; }, "Turned most (cosine)"},
      {"Sign conflicts",
       "Share of elements at which one model goes up and another goes down: by their differences to the base; without a base, by the "
       "values themselves.",
       NumberStyle::kShare, false, Figure::Colours::kLowestToHighest, [](const TensorStatistics& tensor) { return tensor.sign_conflicts; },
       "Most sign conflicts"},
      {"Density kept", "Share of elements of the result that are not the base's; without a base, that are not 0.", NumberStyle::kShare,
       false, Figure::Colours::kLowestToHighest, [](const TensorStatistics& tensor) { return tensor.density_kept; }, nullptr},
      {"Size of weights", "Root mean square of the result's elements.", NumberStyle::kPlain, false, Figure::Colours::kLogarithmic,
       root_mean_square, nullptr},
      {"Largest weight", "Largest magnitude in the result.", NumberStyle::kPlain, false, Figure::Colours::kLogarithmic,
       [](const TensorStatistics& tensor) { return tensor.result.max_absolute; }, "Largest weights"},
  };
  return kFigures;
}

std::vector<Role> roles_of(const hdf5::StatisticsFile& file) {
  std::vector<Role> roles;
  std::map<std::string, std::size_t> index_of;
  std::map<std::string, int> outputs;
  for (std::size_t i = 0; i < file.tensors.size(); ++i) {
    const TensorStatistics& tensor = file.tensors[i];
    if (tensor.layer < 0) continue;
    const auto [found, is_new] = index_of.try_emplace(tensor.pattern, roles.size());
    if (is_new) roles.push_back({tensor.pattern, {}, {}, {}});
    Role& role = roles[found->second];
    int expert = tensor.expert;
    if (!tensor.output.empty()) expert = outputs.try_emplace(tensor.output, static_cast<int>(outputs.size())).first->second;
    role.tensors[tensor.layer][expert] = i;
    role.experts.insert(expert);
  }
  const std::size_t common = common_beginning(roles).size();
  for (Role& role : roles) role.label = label_of(role.pattern, common);
  return roles;
}

std::string full_name(const TensorStatistics& tensor) {
  return printable(tensor.output.empty() ? tensor.name : tensor.output + ": " + tensor.name);
}

}  // namespace moeweld::app
