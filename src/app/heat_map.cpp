#include "app/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>

#include "app/markup.h"

namespace moeweld::app {

namespace {

constexpr std::size_t kSide = 240;
constexpr std::size_t kGap = 36;
constexpr std::size_t kTopMargin = 64;

Rgb colour(float value) {
  const double part = std::isfinite(value) ? std::clamp(static_cast<double>(value), -1.0, 1.0) : 0.0;
  constexpr std::array<double, 3> kRed = {178, 24, 43};
  constexpr std::array<double, 3> kBlue = {33, 102, 172};
  Rgb result{};
  for (std::size_t i = 0; i < 3; ++i) {
    const double end = part < 0 ? kBlue[i] : kRed[i];
    result[i] = static_cast<std::uint8_t>(std::lround(255 + std::abs(part) * (end - 255)));
  }
  return result;
}

std::string picture(const HeatMap& map) {
  std::vector<Rgb> pixels;
  for (const float value : map.values) pixels.push_back(colour(value));
  return png_uri(map.size, map.size, pixels);
}

}  // namespace

std::string heat_map_svg(const std::string& title, const std::vector<HeatMap>& maps, std::size_t columns) {
  const std::size_t rows = (maps.size() + columns - 1) / columns;
  const std::size_t width = kGap + columns * (kSide + kGap);
  const std::size_t height = kTopMargin + rows * (kSide + kGap);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" "
      "font-size=\"13\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n<text x=\"{2}\" y=\"24\">{3}</text>\n",
      width, height, kGap, escaped(title));
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const std::size_t x = kGap + i % columns * (kSide + kGap);
    const std::size_t y = kTopMargin + i / columns * (kSide + kGap);
    fmt::format_to(std::back_inserter(svg),
                   "<text x=\"{0}\" y=\"{1}\">{2}</text>\n<image x=\"{0}\" y=\"{3}\" width=\"{4}\" height=\"{4}\" "
                   "preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" href=\"{5}\"/>\n"
                   "<rect x=\"{0}\" y=\"{3}\" width=\"{4}\" height=\"{4}\" fill=\"none\" stroke=\"#999\"/>\n",
                   x, y - 6, escaped(maps[i].title), y, kSide, picture(maps[i]));
  }
  return svg + "</svg>\n";
}

}  // namespace moeweld::app
