#pragma once
/// Matrices of cosines as a picture.

#include <string>
#include <vector>

namespace moeweld::app {

/// A square matrix of numbers from -1 to 1, row-major.
struct HeatMap {
  std::string title;
  std::size_t size = 0;
  std::vector<float> values;
};

/// An SVG with `columns` maps in each row: blue for -1, white for 0, red for 1. Each map is one small picture (PNG) within it, so that a
/// thousand maps of 256 x 256 still open.
std::string heat_map_svg(const std::string& title, const std::vector<HeatMap>& maps, std::size_t columns);

}  // namespace moeweld::app
