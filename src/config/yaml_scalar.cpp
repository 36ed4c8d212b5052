#include "config/yaml_scalar.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>

namespace moeweld::config {
namespace {

bool one_of(std::string_view text, std::initializer_list<std::string_view> words) { return std::ranges::find(words, text) != words.end(); }

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::optional<double> integer(std::string_view digits, int base, double sign) {
  std::string plain;
  for (const char c : digits) {
    if (c != '_') plain += c;
  }
  if (plain.empty()) return std::nullopt;
  double value = 0;
  for (const char c : plain) {
    int digit = 99;
    if (is_digit(c)) digit = c - '0';
    if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
    if (c >= 'A' && c <= 'F') digit = c - 'A' + 10;
    if (digit >= base) return std::nullopt;
    value = value * base + digit;
  }
  return sign * value;
}

/// digits "." digits [e sign digits], at least one digit in front unless the dot leads.
bool has_float_form(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size() && (is_digit(text[i]) || (text[i] == '_' && i > 0))) ++i;
  if (i == text.size() || text[i] != '.') return false;
  const bool leading_dot = i == 0;
  ++i;
  if (leading_dot && (i == text.size() || !is_digit(text[i]))) return false;
  while (i < text.size() && (is_digit(text[i]) || text[i] == '_')) ++i;
  if (i == text.size()) return true;
  if (text[i] != 'e' && text[i] != 'E') return false;
  ++i;
  if (i == text.size() || (text[i] != '+' && text[i] != '-')) return false;
  ++i;
  return i < text.size() && std::all_of(text.begin() + static_cast<std::ptrdiff_t>(i), text.end(), is_digit);
}

}  // namespace

bool is_yaml_null(std::string_view text) { return text.empty() || one_of(text, {"~", "null", "Null", "NULL"}); }

std::optional<bool> yaml_bool(std::string_view text) {
  if (one_of(text, {"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})) return true;
  if (one_of(text, {"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})) return false;
  return std::nullopt;
}

std::optional<double> yaml_number(std::string_view text) {
  if (text.empty() || text.size() > 1000) return std::nullopt;
  double sign = 1;
  if (text.front() == '+' || text.front() == '-') {
    if (text.front() == '-') sign = -1;
    text.remove_prefix(1);
  }
  if (text.empty()) return std::nullopt;
  if (one_of(text, {".inf", ".Inf", ".INF"})) return sign * std::numeric_limits<double>::infinity();
  if (one_of(text, {".nan", ".NaN", ".NAN"})) return std::numeric_limits<double>::quiet_NaN();
  if (text == "0") return 0.0 * sign;
  if (text.starts_with("0b")) return integer(text.substr(2), 2, sign);
  if (text.starts_with("0x")) return integer(text.substr(2), 16, sign);
  if (has_float_form(text)) {
    std::string plain;
    std::ranges::remove_copy(text, std::back_inserter(plain), '_');
    double value = 0;
    const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
    if (error == std::errc::result_out_of_range) {
      const bool tiny = plain.find('-') != std::string::npos;
      return tiny ? 0.0 : sign * std::numeric_limits<double>::infinity();
    }
    if (error != std::errc{} || end != plain.data() + plain.size()) return std::nullopt;
    return sign * value;
  }
  if (!is_digit(text.front())) return std::nullopt;
  return integer(text, text.front() == '0' ? 8 : 10, sign);
}

std::optional<double> decimal_number(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return std::nullopt;
  }
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

}  // namespace moeweld::config
