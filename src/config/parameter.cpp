#include "moeweld/config/parameter.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace moeweld::config {

namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); });
  return result;
}

std::optional<double> number_of(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty() || !std::isfinite(value)) return std::nullopt;
  return value;
}

bool applies(const ConditionalValue& condition, std::string_view tensor_name) {
  return !condition.filter || *condition.filter == "*" || tensor_name.find(*condition.filter) != std::string_view::npos;
}

std::optional<Scalar> pick(const std::vector<Scalar>& gradient, double t) {
  if (gradient.empty()) return std::nullopt;
  const double scaled = t * static_cast<double>(gradient.size() - 1);
  const auto below = std::min(static_cast<std::size_t>(scaled), gradient.size() - 1);
  const bool numeric = std::all_of(gradient.begin(), gradient.end(), [](const Scalar& value) {
    return !std::holds_alternative<bool>(value) && as_number(value).has_value();
  });
  if (!numeric || gradient.size() == 1) return gradient[below];
  const std::size_t above = std::min(below + 1, gradient.size() - 1);
  const double fraction = scaled - static_cast<double>(below);
  return (1 - fraction) * *as_number(gradient[below]) + fraction * *as_number(gradient[above]);
}

}  // namespace

const ParameterSetting* find(const ParameterMap& parameters, std::string_view name) {
  for (const NamedSetting& named : parameters) {
    if (named.name == name) return &named.setting;
  }
  return nullptr;
}

std::optional<Scalar> evaluate(const ParameterSetting& setting, std::string_view tensor_name, double t) {
  // The first condition that applies decides, even where its gradient is empty.
  for (const ConditionalValue& condition : setting.conditions) {
    if (applies(condition, tensor_name)) return pick(condition.gradient, t);
  }
  return std::nullopt;
}

std::optional<double> as_number(const Scalar& scalar) {
  if (const bool* flag = std::get_if<bool>(&scalar)) return *flag ? 1.0 : 0.0;
  if (const double* number = std::get_if<double>(&scalar)) return *number;
  return number_of(std::get<std::string>(scalar));
}

std::optional<bool> as_bool(const Scalar& scalar) {
  if (const bool* flag = std::get_if<bool>(&scalar)) return *flag;
  if (const double* number = std::get_if<double>(&scalar)) {
    if (*number == 0.0) return false;
    if (*number == 1.0) return true;
    return std::nullopt;
  }
  const std::string text = lower(std::get<std::string>(scalar));
  for (const char* word : {"true", "yes", "on", "y", "t", "1"}) {
    if (text == word) return true;
  }
  for (const char* word : {"false", "no", "off", "n", "f", "0"}) {
    if (text == word) return false;
  }
  return std::nullopt;
}

}  // namespace moeweld::config
