#include "app/layer_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "app/markup.h"

namespace moeweld::app {

namespace {

constexpr std::size_t kLabelWidth = 230;
constexpr std::size_t kMapWidth = 860;
/// A label stands out above a row that is lower than it.
constexpr double kTop = 8;
constexpr std::size_t kAxisHeight = 34;
constexpr std::size_t kRowHeight = 20;
constexpr std::size_t kMostShapes = 1200;
constexpr std::size_t kPictureHeight = 512;
constexpr std::size_t kLabelBytes = 32;
/// Values are written into cells that are so wide.
constexpr std::size_t kWideCell = 56;

/// ColorBrewer's YlGnBu: from light to dark, in an order that people with any colour vision see, and in grey prints.
constexpr std::array<Rgb, 9> kRamp = {{{255, 255, 217},
                                       {237, 248, 177},
                                       {199, 233, 180},
                                       {127, 205, 187},
                                       {65, 182, 196},
                                       {29, 145, 192},
                                       {34, 94, 168},
                                       {37, 52, 148},
                                       {8, 29, 88}}};
constexpr Rgb kNoValue = {200, 200, 200};

double position(double value, const ColourScale& scale) {
  if (!(scale.high > scale.low)) return 0;
  double part = (value - scale.low) / (scale.high - scale.low);
  if (scale.is_logarithmic) part = value > 0 ? std::log(value / scale.low) / std::log(scale.high / scale.low) : 0;
  part = std::clamp(part, 0.0, 1.0);
  return scale.is_reversed ? 1 - part : part;
}

Rgb ramp(double part) {
  const double at = part * (kRamp.size() - 1);
  const auto below = std::min(static_cast<std::size_t>(at), kRamp.size() - 2);
  Rgb result{};
  for (std::size_t i = 0; i < 3; ++i) {
    const double from = kRamp[below][i];
    result[i] = static_cast<std::uint8_t>(std::lround(from + (at - static_cast<double>(below)) * (kRamp[below + 1][i] - from)));
  }
  return result;
}

Rgb colour(double value, const ColourScale& scale) { return std::isfinite(value) ? ramp(position(value, scale)) : kNoValue; }

std::string hex(Rgb rgb) { return fmt::format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]); }

/// At most kLabelBytes, whole characters.
std::string short_label(const std::string& label) {
  if (label.size() <= kLabelBytes) return label;
  // The end says more than the beginning.
  std::size_t begin = label.size() - kLabelBytes;
  while (begin < label.size() && (static_cast<unsigned char>(label[begin]) & 0xC0U) == 0x80U) ++begin;
  return "…" + label.substr(begin);
}

/// Every how manyth of `count` labels fits, one for each `least` pixels.
std::size_t label_step(std::size_t count, double pixels_each, double least) {
  for (const std::size_t step : {1, 2, 4, 5, 8, 10, 16, 20, 32, 64, 128, 256, 512, 1024}) {
    if (static_cast<double>(step) * pixels_each >= least) return step;
  }
  return std::max<std::size_t>(1, count);
}

class Drawing {
 public:
  Drawing(const LayerMap& map, const ColourScale& scale)
      : map_(map),
        scale_(scale),
        rows_(map.labels.size()),
        columns_(map.layers.size()),
        is_picture_(rows_ * columns_ > kMostShapes),
        cell_width_(std::clamp(static_cast<double>(kMapWidth) / static_cast<double>(std::max<std::size_t>(1, columns_)), 2.0, 72.0)),
        cell_height_(is_picture_ && rows_ > kPictureHeight / kRowHeight
                         ? std::max(1.0, static_cast<double>(kPictureHeight) / static_cast<double>(rows_))
                         : static_cast<double>(kRowHeight)) {}

  std::string run() {
    const double width = kLabelWidth + cell_width_ * static_cast<double>(columns_) + 24;
    const double height = y(rows_) + kAxisHeight;
    fmt::format_to(out(), "<svg role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {:.0f} {:.0f}\" width=\"{:.0f}\" height=\"{:.0f}\">\n",
                   escaped(map_.title), width, height, width, height);
    draw_labels();
    if (is_picture_) {
      draw_picture();
    } else {
      draw_cells();
    }
    draw_axis();
    return svg_ + "</svg>\n";
  }

 private:
  std::back_insert_iterator<std::string> out() { return std::back_inserter(svg_); }
  double x(std::size_t column) const { return kLabelWidth + cell_width_ * static_cast<double>(column); }
  double y(std::size_t row) const { return kTop + cell_height_ * static_cast<double>(row); }

  void draw_labels() {
    const std::size_t step = label_step(rows_, cell_height_, 14);
    for (std::size_t row = 0; row < rows_; row += step) {
      fmt::format_to(out(), "<text class=\"label\" x=\"{}\" y=\"{:.1f}\">{}<title>{}</title></text>\n", kLabelWidth - 8,
                     y(row) + std::min<double>(cell_height_, kRowHeight) / 2 + 4, escaped(short_label(map_.labels[row])),
                     escaped(map_.labels[row]));
    }
  }

  void draw_cells() {
    for (std::size_t row = 0; row < rows_; ++row) {
      for (std::size_t column = 0; column < columns_; ++column) {
        const double value = map_.values[row * columns_ + column];
        const std::string text = number_text(value, scale_.style);
        fmt::format_to(
            out(),
            "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"><title>{}, layer {}: {}</title></rect>\n",
            x(column), y(row), cell_width_ - 1, cell_height_ - 1, hex(colour(value, scale_)), escaped(map_.labels[row]),
            map_.layers[column], text);
        if (cell_width_ < kWideCell) continue;
        const bool is_dark = std::isfinite(value) && position(value, scale_) > 0.5;
        fmt::format_to(out(), "<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", is_dark ? "on dark" : "on",
                       x(column) + cell_width_ / 2, y(row) + cell_height_ / 2 + 4, text);
      }
    }
  }

  void draw_picture() {
    std::vector<Rgb> pixels;
    pixels.reserve(map_.values.size());
    for (const double value : map_.values) pixels.push_back(colour(value, scale_));
    fmt::format_to(out(), "<image x=\"{}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" preserveAspectRatio=\"none\" href=\"{}\"/>\n",
                   kLabelWidth, y(0), cell_width_ * static_cast<double>(columns_), cell_height_ * static_cast<double>(rows_),
                   png_uri(columns_, rows_, pixels));
  }

  void draw_axis() {
    const std::size_t step = label_step(columns_, cell_width_, 26);
    for (std::size_t column = 0; column < columns_; column += step) {
      fmt::format_to(out(), "<text class=\"axis\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", x(column) + cell_width_ / 2, y(rows_) + 13,
                     map_.layers[column]);
    }
    fmt::format_to(out(), "<text class=\"axis\" x=\"{:.1f}\" y=\"{:.1f}\">layer</text>\n",
                   kLabelWidth + std::max(20.0, cell_width_ * static_cast<double>(columns_) / 2), y(rows_) + 29);
  }

  const LayerMap& map_;
  const ColourScale& scale_;
  const std::size_t rows_;
  const std::size_t columns_;
  const bool is_picture_;
  const double cell_width_;
  const double cell_height_;
  std::string svg_;
};

}  // namespace

std::string number_text(double value, NumberStyle style) {
  if (std::isnan(value)) return "–";
  switch (style) {
    case NumberStyle::kShare:
      return value != 0 && std::abs(value) < 1e-3 ? fmt::format("{:.2g} %", 100 * value) : fmt::format("{:.2f} %", 100 * value);
    case NumberStyle::kCosine:
      return fmt::format("{:.5f}", value);
    case NumberStyle::kPlain:
      break;
  }
  return fmt::format("{:.3g}", value);
}

std::string layer_map_svg(const LayerMap& map, const ColourScale& scale) { return Drawing(map, scale).run(); }

std::string legend_html(const ColourScale& scale) {
  std::string stops;
  for (std::size_t i = 0; i < kRamp.size(); ++i) {
    const Rgb rgb = kRamp[scale.is_reversed ? kRamp.size() - 1 - i : i];
    stops += (stops.empty() ? "" : ", ") + hex(rgb);
  }
  std::string html = "<p class=\"legend\">";
  if (scale.high > scale.low) {
    html += fmt::format("<span>{}</span> <span class=\"bar\" style=\"background: linear-gradient(to right, {})\"></span> <span>{}</span>",
                        number_text(scale.low, scale.style), stops, number_text(scale.high, scale.style));
    if (scale.is_logarithmic) html += " <span>(logarithmic)</span>";
  } else {
    html += fmt::format("<span class=\"box\" style=\"background: {}\"></span> <span>{} everywhere</span>", hex(colour(scale.low, scale)),
                        number_text(scale.low, scale.style));
  }
  return html + fmt::format(" <span class=\"box\" style=\"background: {}\"></span> <span>no value</span></p>\n", hex(kNoValue));
}

}  // namespace moeweld::app
