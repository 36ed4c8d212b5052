#include "app/statistics_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "app/layer_map.h"
#include "app/markup.h"
#include "app/statistics_figures.h"
#include "moeweld/base/text.h"

namespace moeweld::app {

namespace {

using exec::TensorStatistics;

constexpr std::size_t kMostExtremes = 10;
constexpr std::size_t kMostOutsideLayers = 60;

constexpr const char* kStyle = R"css(
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; padding: 24px 32px 64px; max-width: 1180px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 40px 0 4px; border-bottom: 1px solid #ddd; padding-bottom: 4px; }
h3 { font-size: 15px; margin: 0 0 6px; }
p { margin: 4px 0 10px; max-width: 80em; }
.note { background: #fff4ce; border-left: 4px solid #b58900; padding: 8px 12px; }
nav { margin: 8px 0 16px; }
nav a { margin-right: 16px; white-space: nowrap; }
a { color: #0b57a4; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: 3px 12px 3px 0; border-bottom: 1px solid #eee; vertical-align: top; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 24px 40px; }
.grid table { width: 100%; }
svg { display: block; max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: #1a1a1a; }
svg .label { text-anchor: end; }
svg .axis { text-anchor: middle; fill: #444; }
svg .on { text-anchor: middle; font-size: 11px; }
svg .dark { fill: #fff; }
svg image { image-rendering: pixelated; }
.legend { display: flex; align-items: center; gap: 8px; font-size: 13px; }
.bar { display: inline-block; width: 220px; height: 12px; border: 1px solid #999; }
.box { display: inline-block; width: 14px; height: 12px; border: 1px solid #999; margin-left: 8px; }
details { margin: 8px 0; }
summary { cursor: pointer; color: #0b57a4; }
pre { background: #f6f6f6; padding: 12px; overflow-x: auto; font-size: 13px; }
)css";

/// Lines stay lines; nothing else in them is trusted.
std::string lines_escaped(const std::string& text) {
  std::string result;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    result += escaped(printable(text.substr(begin, end - begin), 2000)) + "\n";
    begin = end + 1;
  }
  return result;
}

std::string count_text(double count) {
  if (count >= 1e9) return fmt::format("{:.4g} billion", count / 1e9);
  if (count >= 1e6) return fmt::format("{:.4g} million", count / 1e6);
  return fmt::format("{:.0f}", count);
}

class Page {
 public:
  explicit Page(const hdf5::StatisticsFile& file) : file_(file), roles_(roles_of(file)) {
    std::set<int> layers;
    for (const Role& role : roles_) {
      for (const auto& [layer, tensors] : role.tensors) layers.insert(layer);
    }
    layers_.assign(layers.begin(), layers.end());
  }

  std::string run() {
    head();
    summary();
    models();
    if (!roles_.empty()) {
      for (std::size_t i = 0; i < figures().size(); ++i) maps(i);
    }
    extremes();
    outside_layers();
    if (!file_.config.empty()) {
      html_ += "<h2>Configuration</h2>\n<pre>" + lines_escaped(file_.config) + "</pre>\n";
    }
    return html_ + "</body>\n</html>\n";
  }

 private:
  std::back_insert_iterator<std::string> out() { return std::back_inserter(html_); }

  void head() {
    const std::string title = escaped(printable(file_.title));
    fmt::format_to(
        out(),
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"/>\n"
        "<meta name=\"viewport\" content=\"width=device-width\"/>\n<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n"
        "<h1>{0}</h1>\n",
        title, kStyle);
    html_ += "<nav aria-label=\"Sections\">";
    if (!roles_.empty()) {
      for (std::size_t i = 0; i < figures().size(); ++i) fmt::format_to(out(), "<a href=\"#map-{}\">{}</a> ", i, figures()[i].title);
    }
    html_ += "<a href=\"#extremes\">Extremes</a></nav>\n";
  }

  void row(const char* what, const std::string& value) {
    fmt::format_to(out(), "<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", what, escaped(value));
  }

  void summary() {
    std::size_t measured = 0;
    std::uint64_t non_finite = 0;
    double elements = 0;
    std::set<std::string> methods;
    for (const TensorStatistics& tensor : file_.tensors) {
      if (tensor.is_measured) ++measured;
      non_finite += tensor.result.non_finite;
      methods.insert(printable(tensor.method, 40));
      double count = 1;
      for (const std::uint64_t extent : tensor.shape) count *= static_cast<double>(extent);
      elements += count;
    }
    if (measured < file_.tensors.size()) {
      fmt::format_to(out(), "<p class=\"note\">{} of {} tensors have no figures: {}</p>\n", file_.tensors.size() - measured,
                     file_.tensors.size(),
                     file_.is_resumed ? "an earlier run, which this one continued, had computed all or part of them."
                                      : "the run did not compute all of them.");
    }
    if (non_finite != 0) {
      fmt::format_to(out(), "<p class=\"note\">{} elements of the result are NaN or infinite; they are left out of all figures.</p>\n",
                     non_finite);
    }
    std::string names;
    for (const std::string& method : methods) names += (names.empty() ? "" : ", ") + method;
    html_ += "<div class=\"scroll\"><table>\n";
    row("Tensors", fmt::format("{}, {} elements, in {} layer{}", file_.tensors.size(), count_text(elements), layers_.size(),
                               layers_.size() == 1 ? "" : "s"));
    row("Computed by", names);
    row("Seed", std::to_string(file_.seed));
    row("Plan", printable(file_.plan_digest, 80));
    row("moeweld", printable(file_.version, 40));
    html_ += "</table></div>\n";
  }

  /// What the inputs of each model come to, all tensors together.
  void models() {
    struct Sums {
      std::size_t inputs = 0;
      double squares = 0;
      double squared_difference = 0;
      double reference_squares = 0;
      std::uint64_t non_finite = 0;
    };
    std::vector<Sums> sums(file_.models.size());
    for (const TensorStatistics& tensor : file_.tensors) {
      if (!tensor.is_measured) continue;
      for (std::size_t i = 0; i < tensor.inputs.size(); ++i) {
        if (tensor.models[i] == exec::kNoModel) continue;
        const exec::ValueStatistics& value = tensor.inputs[i];
        Sums& sum = sums[tensor.models[i]];
        ++sum.inputs;
        sum.squares += value.norm * value.norm;
        sum.non_finite += value.non_finite;
        const double reference = tensor.inputs[static_cast<std::size_t>(tensor.reference)].norm;
        sum.squared_difference += value.difference_norm * value.difference_norm;
        sum.reference_squares += reference * reference;
      }
    }
    html_ +=
        "<h2>Models</h2>\n<p>All of a model's tensors that were read, together: their norm, and how far they are from the reference "
        "(the base; without a base, the first model), as a share of its norm.</p>\n<div class=\"scroll\"><table>\n"
        "<tr><th scope=\"col\">Model</th><th scope=\"col\" class=\"number\">Inputs</th><th scope=\"col\" class=\"number\">Norm</th>"
        "<th scope=\"col\" class=\"number\">Distance</th><th scope=\"col\" class=\"number\">NaN or infinite</th></tr>\n";
    for (std::size_t model = 0; model < sums.size(); ++model) {
      const Sums& sum = sums[model];
      fmt::format_to(
          out(),
          "<tr><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td "
          "class=\"number\">{}</td></tr>\n",
          escaped(printable(file_.models[model])), sum.inputs, number_text(std::sqrt(sum.squares), NumberStyle::kPlain),
          number_text(sum.reference_squares > 0 ? std::sqrt(sum.squared_difference / sum.reference_squares) : kNone, NumberStyle::kShare),
          sum.non_finite);
    }
    html_ += "</table></div>\n";
  }

  ColourScale scale_of(const Figure& figure) const {
    const bool is_logarithmic = figure.colours == Figure::Colours::kLogarithmic;
    double low = std::numeric_limits<double>::infinity();
    double high = -low;
    for (const Role& role : roles_) {
      for (const auto& [layer, experts] : role.tensors) {
        for (const auto& [expert, index] : experts) {
          const double value = figure.of(file_.tensors[index]);
          if (!std::isfinite(value) || (is_logarithmic && value <= 0)) continue;
          low = std::min(low, value);
          high = std::max(high, value);
        }
      }
    }
    if (low > high) low = high = 0;  // there is none
    if (figure.colours == Figure::Colours::kFromZero && high > low) low = 0;
    if (figure.colours == Figure::Colours::kToOne) high = 1;
    return {.low = low, .high = high, .is_reversed = figure.least_is_most, .is_logarithmic = is_logarithmic, .style = figure.style};
  }

  void maps(std::size_t number) {
    const Figure& figure = figures()[number];
    const ColourScale scale = scale_of(figure);
    LayerMap map{.title = fmt::format("{} by role and layer", figure.title), .labels = {}, .layers = layers_, .values = {}};
    std::size_t with_experts = 0;
    for (const Role& role : roles_) {
      map.labels.push_back(role.experts.size() > 1 ? role.label + " (mean)" : role.label);
      if (role.experts.size() > 1) ++with_experts;
      for (const int layer : layers_) map.values.push_back(mean_of(role, layer, figure));
    }
    fmt::format_to(out(), "<section id=\"map-{}\">\n<h2>{}</h2>\n<p>{}</p>\n", number, figure.title, figure.meaning);
    if (std::all_of(map.values.begin(), map.values.end(), [](double value) { return std::isnan(value); })) {
      html_ += "<p>No tensor has this figure.</p>\n</section>\n";
      return;
    }
    html_ += legend_html(scale) + "<div class=\"scroll\">" + layer_map_svg(map, scale) + "</div>\n";
    if (with_experts != 0) {
      for (const Role& role : roles_) {
        if (role.experts.size() > 1) expert_map(role, figure, scale);
      }
    }
    html_ += "</section>\n";
  }

  double mean_of(const Role& role, int layer, const Figure& figure) const {
    const auto found = role.tensors.find(layer);
    if (found == role.tensors.end()) return kNone;
    double sum = 0;
    std::size_t count = 0;
    for (const auto& [expert, index] : found->second) {
      const double value = figure.of(file_.tensors[index]);
      if (std::isnan(value)) continue;
      sum += value;
      ++count;
    }
    return count == 0 ? kNone : sum / static_cast<double>(count);
  }

  void expert_map(const Role& role, const Figure& figure, const ColourScale& scale) {
    LayerMap map{
        .title = fmt::format("{} of {} by expert and layer", figure.title, role.label), .labels = {}, .layers = layers_, .values = {}};
    for (const int expert : role.experts) {
      map.labels.push_back(expert < 0 ? "not an expert's" : fmt::format("expert {}", expert));
      for (const int layer : layers_) {
        const auto found = role.tensors.find(layer);
        const auto tensor = found == role.tensors.end() ? std::map<int, std::size_t>::const_iterator{} : found->second.find(expert);
        const bool is_there = found != role.tensors.end() && tensor != found->second.end();
        map.values.push_back(is_there ? figure.of(file_.tensors[tensor->second]) : kNone);
      }
    }
    fmt::format_to(out(), "<details><summary>{}, each of {} experts</summary>\n<div class=\"scroll\">{}</div></details>\n",
                   escaped(role.label), role.experts.size(), layer_map_svg(map, scale));
  }

  void extremes() {
    html_ += "<section id=\"extremes\">\n<h2>Extremes</h2>\n<div class=\"grid\">\n";
    for (const Figure& figure : figures()) {
      if (figure.extremes == nullptr) continue;
      std::vector<std::pair<double, std::size_t>> values;
      for (std::size_t i = 0; i < file_.tensors.size(); ++i) {
        const double value = figure.of(file_.tensors[i]);
        if (!std::isnan(value)) values.emplace_back(figure.least_is_most ? value : -value, i);
      }
      const std::size_t count = std::min(kMostExtremes, values.size());
      std::partial_sort(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count), values.end());
      values.resize(count);
      std::vector<std::pair<std::string, std::size_t>> rows;
      for (const auto& [order, index] : values) rows.emplace_back(number_text(figure.of(file_.tensors[index]), figure.style), index);
      extreme_table(figure.extremes, rows);
    }
    std::vector<std::pair<std::string, std::size_t>> rows;
    for (std::size_t i = 0; i < file_.tensors.size() && rows.size() < kMostExtremes; ++i) {
      if (file_.tensors[i].left_out != 0) rows.emplace_back(std::to_string(file_.tensors[i].left_out), i);
    }
    if (!rows.empty()) extreme_table("Elements left out: NaN or infinite in an input or the result", rows);
    html_ += "</div>\n</section>\n";
  }

  void extreme_table(const char* title, const std::vector<std::pair<std::string, std::size_t>>& rows) {
    if (rows.empty()) return;
    fmt::format_to(out(), "<div><h3>{}</h3>\n<table>\n", title);
    for (const auto& [value, index] : rows) {
      fmt::format_to(out(), "<tr><td>{}</td><td class=\"number\">{}</td></tr>\n", escaped(full_name(file_.tensors[index])), value);
    }
    html_ += "</table></div>\n";
  }

  void outside_layers() {
    std::vector<std::size_t> indices;
    for (std::size_t i = 0; i < file_.tensors.size(); ++i) {
      if (file_.tensors[i].layer < 0) indices.push_back(i);
    }
    if (indices.empty()) return;
    html_ += "<h2>Outside of layers</h2>\n<div class=\"scroll\"><table>\n<tr><th scope=\"col\">Tensor</th>";
    for (const Figure& figure : figures()) fmt::format_to(out(), "<th scope=\"col\" class=\"number\">{}</th>", figure.title);
    html_ += "</tr>\n";
    for (std::size_t i = 0; i < std::min(indices.size(), kMostOutsideLayers); ++i) {
      const TensorStatistics& tensor = file_.tensors[indices[i]];
      fmt::format_to(out(), "<tr><td>{}</td>", escaped(full_name(tensor)));
      for (const Figure& figure : figures())
        fmt::format_to(out(), "<td class=\"number\">{}</td>", number_text(figure.of(tensor), figure.style));
      html_ += "</tr>\n";
    }
    html_ += "</table></div>\n";
    if (indices.size() > kMostOutsideLayers) fmt::format_to(out(), "<p>and {} more.</p>\n", indices.size() - kMostOutsideLayers);
  }

  const hdf5::StatisticsFile& file_;
  const std::vector<Role> roles_;
  std::vector<int> layers_;
  std::string html_;
};

}  // namespace

std::string statistics_page(const hdf5::StatisticsFile& file) { return Page(file).run(); }

}  // namespace moeweld::app
