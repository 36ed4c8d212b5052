#include "app/markup.h"

namespace moeweld::app {

namespace {

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

}  // namespace

std::string escaped(std::string_view text) {
  std::string result;
  for (const char character : text) {
    switch (character) {
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '&':
        result += "&amp;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += character;
    }
  }
  return result;
}

std::string png_uri(std::size_t width, std::size_t height, const std::vector<Rgb>& pixels) {
  std::string header;
  append_number(header, static_cast<std::uint32_t>(width));
  append_number(header, static_cast<std::uint32_t>(height));
  header += std::string("\x08\x02\x00\x00\x00", 5);  // 8 bits, RGB
  std::string bytes;
  for (std::size_t row = 0; row < height; ++row) {
    bytes += '\0';  // no filter
    for (std::size_t column = 0; column < width; ++column) {
      for (const std::uint8_t part : pixels[row * width + column]) bytes += static_cast<char>(part);
    }
  }
  std::string png = "\x89PNG\r\n\x1a\n";
  append_chunk(png, "IHDR", header);
  append_chunk(png, "IDAT", stored(bytes));
  append_chunk(png, "IEND", {});
  return "data:image/png;base64," + base64(png);
}

}  // namespace moeweld::app
