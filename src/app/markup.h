#pragma once
/// Texts and pictures within HTML and SVG.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moeweld::app {

using Rgb = std::array<std::uint8_t, 3>;

/// For text and attributes in double quotes.
std::string escaped(std::string_view text);

/// "data:image/png;base64,…"; width x height pixels, row-major.
std::string png_uri(std::size_t width, std::size_t height, const std::vector<Rgb>& pixels);

}  // namespace moeweld::app
