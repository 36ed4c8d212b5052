#include "app/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace moeweld::app {

namespace {

constexpr std::size_t kSide = 240;
constexpr std::size_t kGap = 36;
constexpr std::size_t kTop = 64;

void append_number(std::string& bytes, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xFF);
}

std::uint32_t crc32(std::string_view bytes) {
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char byte : bytes) {
    crc ^= static_cast<std::uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320U : 0U);
  }
  return ~crc;
}

void append_chunk(std::string& png, std::string_view type, const std::string& data) {
  append_number(png, static_cast<std::uint32_t>(data.size()));
  const std::string body = std::string(type) + data;
  png += body;
  append_number(png, crc32(body));
}

/// A zlib stream of stored blocks.
std::string stored(const std::string& data) {
  constexpr std::size_t kLargestBlock = 65535;
  std::string result = "\x78\x01";
  for (std::size_t begin = 0; begin == 0 || begin < data.size(); begin += kLargestBlock) {
    const std::size_t count = std::min(kLargestBlock, data.size() - begin);
    result += begin + count == data.size() ? '\1' : '\0';
    for (const std::size_t number : {count, ~count}) {
      result += static_cast<char>(number & 0xFF);
      result += static_cast<char>(number >> 8 & 0xFF);
    }
    result.append(data, begin, count);
  }
  std::uint32_t low = 1;
  std::uint32_t high = 0;
  for (const char byte : data) {
    low = (low + static_cast<std::uint8_t>(byte)) % 65521;
    high = (high + low) % 65521;
  }
  append_number(result, high << 16 | low);
  return result;
}

std::array<std::uint8_t, 3> colour(float value) {
  const double part = std::isfinite(value) ? std::clamp(static_cast<double>(value), -1.0, 1.0) : 0.0;
  constexpr std::array<double, 3> kRed = {178, 24, 43};
  constexpr std::array<double, 3> kBlue = {33, 102, 172};
  std::array<std::uint8_t, 3> result{};
  for (std::size_t i = 0; i < 3; ++i) {
    const double end = part < 0 ? kBlue[i] : kRed[i];
    result[i] = static_cast<std::uint8_t>(std::lround(255 + std::abs(part) * (end - 255)));
  }
  return result;
}

std::string png(const HeatMap& map) {
  std::string header;
  append_number(header, static_cast<std::uint32_t>(map.size));
  append_number(header, static_cast<std::uint32_t>(map.size));
  header += std::string("\x08\x02\x00\x00\x00", 5);  // 8 bits, RGB
  std::string pixels;
  for (std::size_t row = 0; row < map.size; ++row) {
    pixels += '\0';  // no filter
    for (std::size_t column = 0; column < map.size; ++column) {
      for (const std::uint8_t part : colour(map.values[row * map.size + column])) pixels += static_cast<char>(part);
    }
  }
  std::string result = "\x89PNG\r\n\x1a\n";
  append_chunk(result, "IHDR", header);
  append_chunk(result, "IDAT", stored(pixels));
  append_chunk(result, "IEND", {});
  return result;
}

std::string base64(const std::string& bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string result;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k) group = group << 8 | (i + k < bytes.size() ? static_cast<std::uint8_t>(bytes[i + k]) : 0U);
    for (std::size_t k = 0; k < 4; ++k) result += i + k <= bytes.size() ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return result;
}

std::string escaped(std::string_view text) {
  std::string result;
  for (const char character : text) {
    if (character == '<') {
      result += "&lt;";
    } else if (character == '&') {
      result += "&amp;";
    } else {
      result += character;
    }
  }
  return result;
}

}  // namespace

std::string heat_map_svg(const std::string& title, const std::vector<HeatMap>& maps, std::size_t columns) {
  const std::size_t rows = (maps.size() + columns - 1) / columns;
  const std::size_t width = kGap + columns * (kSide + kGap);
  const std::size_t height = kTop + rows * (kSide + kGap);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" "
      "font-size=\"13\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n<text x=\"{2}\" y=\"24\">{3}</text>\n",
      width, height, kGap, escaped(title));
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const std::size_t x = kGap + i % columns * (kSide + kGap);
    const std::size_t y = kTop + i / columns * (kSide + kGap);
    fmt::format_to(std::back_inserter(svg),
                   "<text x=\"{0}\" y=\"{1}\">{2}</text>\n<image x=\"{0}\" y=\"{3}\" width=\"{4}\" height=\"{4}\" "
                   "preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{5}\"/>\n"
                   "<rect x=\"{0}\" y=\"{3}\" width=\"{4}\" height=\"{4}\" fill=\"none\" stroke=\"#999\"/>\n",
                   x, y - 6, escaped(maps[i].title), y, kSide, base64(png(maps[i])));
  }
  return svg + "</svg>\n";
}

}  // namespace moeweld::app
