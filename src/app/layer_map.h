#pragma once
/// A heat map with a column for each layer.

#include <string>
#include <vector>

namespace moeweld::app {

enum class NumberStyle { kShare, kCosine, kPlain };

/// "3.21 %", "0.99987", "1.2e-05"; "–" for NaN.
std::string number_text(double value, NumberStyle style);

/// From what to what colours go.
struct ColourScale {
  double low = 0;
  double high = 1;
  bool is_reversed = false;     ///< the lowest value has the strongest colour
  bool is_logarithmic = false;  ///< with low above 0; values up to 0 have its colour
  NumberStyle style = NumberStyle::kPlain;
};

struct LayerMap {
  std::string title;                ///< for who does not see it
  std::vector<std::string> labels;  ///< of rows
  std::vector<int> layers;          ///< of columns, ascending
  std::vector<double> values;       ///< row-major; NaN: none
};

/// SVG. Few cells are shapes with their value on hovering; many are one picture, whose rows are named now and then.
std::string layer_map_svg(const LayerMap& map, const ColourScale& scale);

/// HTML: the colours from low to high, and that of no value.
std::string legend_html(const ColourScale& scale);

}  // namespace moeweld::app
