#include "moeweld/base/text.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <utility>

namespace moeweld {
namespace {

std::string with_unit(double value, double step, std::span<const std::string_view> units) {
  std::size_t unit = 0;
  const auto rounds_to_next = [&] { return value >= (step == 1000.0 ? 999.5 : 1023.5); };
  while (unit + 1 < units.size() && rounds_to_next()) {
    value /= step;
    ++unit;
  }
  std::array<char, 32> digits{};
  const int decimals = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  std::snprintf(digits.data(), digits.size(), "%.*f", decimals, value);
  std::string text = digits.data();
  if (decimals > 0) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return text + " " + std::string(units[unit]);
}

char lower(char letter) { return static_cast<char>(std::tolower(static_cast<unsigned char>(letter))); }

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& letter : result) letter = lower(letter);
  return result;
}

/// Letters inserted, left out, replaced, or two neighbours swapped.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  std::vector<std::size_t> above;
  std::vector<std::size_t> two_above;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    two_above = std::exchange(above, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({substituted, above[j] + 1, row[j - 1] + 1});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], two_above[j - 2] + 1);
    }
  }
  return row[b.size()];
}

// Length of the valid UTF-8 sequence at the front, and its code point; length 0 if there is none.
struct CodePoint {
  std::size_t length = 0;
  std::uint32_t value = 0;
};

CodePoint decode(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
  const std::uint32_t first = byte(0);
  if (first < 0x80) return {1, first};
  std::size_t length = 0;
  std::uint32_t value = 0;
  if (first >= 0xc2 && first <= 0xdf) {
    length = 2;
    value = first & 0x1f;
  } else if (first >= 0xe0 && first <= 0xef) {
    length = 3;
    value = first & 0x0f;
  } else if (first >= 0xf0 && first <= 0xf4) {
    length = 4;
    value = first & 0x07;
  }
  if (length == 0 || text.size() < length) return {};
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    value = value << 6 | (byte(i) & 0x3f);
  }
  const bool overlong = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
  const bool surrogate = value >= 0xd800 && value <= 0xdfff;
  if (overlong || surrogate || value > 0x10ffff) return {};
  return {length, value};
}

// Control characters, and those that hide or reorder what follows them.
bool is_invisible(std::uint32_t value) {
  return value < 0x20 || (value >= 0x7f && value <= 0x9f) || value == 0xad || (value >= 0x200b && value <= 0x200f) ||
         (value >= 0x2028 && value <= 0x202e) || (value >= 0x2060 && value <= 0x206f) || value == 0xfeff ||
         (value >= 0xe0000 && value <= 0xe007f);
}

}  // namespace

std::string format_bytes(std::uint64_t num_bytes) {
  constexpr std::array<std::string_view, 7> kUnits = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  return with_unit(static_cast<double>(num_bytes), 1000.0, kUnits);
}

std::string format_memory(std::uint64_t num_bytes) {
  constexpr std::array<std::string_view, 7> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  return with_unit(static_cast<double>(num_bytes), 1024.0, kUnits);
}

std::string format_duration(double seconds) {
  std::array<char, 64> text{};
  if (!(seconds >= 0.0)) seconds = 0.0;
  if (seconds < 119.95) {
    std::snprintf(text.data(), text.size(), "%.1f s", seconds);
    return text.data();
  }
  const auto whole = static_cast<unsigned long long>(std::min(seconds + 0.5, 1e15));
  if (whole < 3600) {
    std::snprintf(text.data(), text.size(), "%llu:%02llu", whole / 60, whole % 60);
  } else {
    std::snprintf(text.data(), text.size(), "%llu:%02llu:%02llu", whole / 3600, whole / 60 % 60, whole % 60);
  }
  return text.data();
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  constexpr std::size_t kMaxDigits = 19;
  unsigned __int128 digits = 0;
  unsigned __int128 divisor = 1;
  std::size_t num_digits = 0;
  bool fraction = false;
  std::size_t position = 0;
  for (; position < text.size(); ++position) {
    const char letter = text[position];
    if (letter == '.' && !fraction && num_digits > 0) {
      fraction = true;
    } else if (letter >= '0' && letter <= '9') {
      if (++num_digits > kMaxDigits) return std::nullopt;
      digits = digits * 10 + static_cast<unsigned>(letter - '0');
      if (fraction) divisor *= 10;
    } else {
      break;
    }
  }
  if (num_digits == 0 || text[position - 1] == '.') return std::nullopt;

  const std::string unit = lower(text.substr(position));
  struct Unit {
    std::string_view name;
    std::uint64_t size_bytes;
  };
  constexpr std::uint64_t kKilo = 1000;
  constexpr std::array<Unit, 14> kUnits{{{"", 1},
                                         {"b", kKilo * kKilo * kKilo},
                                         {"k", kKilo},
                                         {"kb", kKilo},
                                         {"m", kKilo * kKilo},
                                         {"mb", kKilo * kKilo},
                                         {"g", kKilo * kKilo * kKilo},
                                         {"gb", kKilo * kKilo * kKilo},
                                         {"t", kKilo * kKilo * kKilo * kKilo},
                                         {"tb", kKilo * kKilo * kKilo * kKilo},
                                         {"kib", std::uint64_t{1} << 10},
                                         {"mib", std::uint64_t{1} << 20},
                                         {"gib", std::uint64_t{1} << 30},
                                         {"tib", std::uint64_t{1} << 40}}};
  const auto* found = std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& candidate) { return candidate.name == unit; });
  if (found == kUnits.end()) return std::nullopt;
  const unsigned __int128 size = digits * found->size_bytes / divisor;
  if (size == 0 || size >= static_cast<unsigned __int128>(1) << 63) return std::nullopt;
  return static_cast<std::uint64_t>(size);
}

std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates) {
  const std::string wanted = lower(word);
  const std::string* best = nullptr;
  std::size_t best_distance = std::max<std::size_t>(1, wanted.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(wanted, lower(candidate));
    // A distance of every letter means nothing in common.
    if (distance < best_distance && distance < std::max(wanted.size(), candidate.size())) {
      best_distance = distance;
      best = &candidate;
    }
  }
  if (best == nullptr) return std::nullopt;
  return *best;
}

std::string printable(std::string_view text, std::size_t max_bytes) {
  constexpr std::string_view kEllipsis = "…";
  std::string result;
  while (!text.empty()) {
    const CodePoint point = decode(text);
    const std::size_t length = std::max<std::size_t>(1, point.length);
    std::string piece;
    if (point.length == 0 || is_invisible(point.value)) {
      for (std::size_t i = 0; i < length; ++i) {
        std::array<char, 8> escape{};
        std::snprintf(escape.data(), escape.size(), "\\x%02X", static_cast<unsigned>(static_cast<unsigned char>(text[i])));
        piece += escape.data();
      }
    } else {
      piece = text.substr(0, length);
    }
    const bool is_last = text.size() == length;
    if (result.size() + piece.size() + (is_last ? 0 : kEllipsis.size()) > max_bytes) {
      // The rest may still fit without the ellipsis; only names near the limit pay for this.
      if (is_last || text.size() > max_bytes || result.size() + printable(text, text.size() * 4).size() > max_bytes) {
        while (!result.empty() && result.size() + kEllipsis.size() > max_bytes) result.pop_back();
        return result + std::string(kEllipsis);
      }
      return result + printable(text, text.size() * 4);
    }
    result += piece;
    text.remove_prefix(length);
  }
  return result;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    std::uint64_t word = 0;
    if (text.size() >= sizeof word) {
      std::memcpy(&word, text.data(), sizeof word);
      if ((word & 0x8080808080808080ULL) == 0) {
        text.remove_prefix(sizeof word);
        continue;
      }
    }
    const CodePoint point = decode(text);
    if (point.length == 0) return false;
    text.remove_prefix(point.length);
  }
  return true;
}

}  // namespace moeweld
