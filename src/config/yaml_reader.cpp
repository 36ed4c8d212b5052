#include "config/yaml_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "config/yaml_document.h"
#include "moeweld/base/text.h"

namespace moeweld::config {

namespace {

/// Parameters of methods that a later version brings: known, so not a slip of the pen.
const std::vector<std::string> kParametersOfOtherMethods = {"alpha",
                                                            "density",
                                                            "eps",
                                                            "epsilon",
                                                            "filter_wise",
                                                            "gamma",
                                                            "int8_mask",
                                                            "lambda",
                                                            "max_iter",
                                                            "normalize",
                                                            "normalize_weights",
                                                            "nuslerp_flatten",
                                                            "nuslerp_row_wise",
                                                            "r",
                                                            "rescale",
                                                            "scale",
                                                            "select_topk",
                                                            "t",
                                                            "tol",
                                                            "weight"};

const std::vector<std::string> kDtypes = {"float64", "float32", "float16", "bfloat16"};

std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  const auto near = nearest(word, candidates);
  return near ? " Did you mean '" + *near + "'?" : "";
}

bool is_quoted(const YAML::Node& node) { return node.Tag() == "!"; }

/// Booleans of YAML 1.1, which is what mergekit's users write.
std::optional<bool> plain_bool(const std::string& text) {
  for (const char* word : {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"}) {
    if (text == word) return true;
  }
  for (const char* word : {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"}) {
    if (text == word) return false;
  }
  return std::nullopt;
}

bool is_non_finite(const std::string& text) {
  for (const char* word : {".inf", "-.inf", "+.inf", ".Inf", "-.Inf", ".INF", "-.INF", ".nan", ".NaN", ".NAN", "inf", "-inf", "nan", "NaN",
                           "Infinity", "-Infinity"}) {
    if (text == word) return true;
  }
  return false;
}

}  // namespace

void YamlReader::problem(int line, std::string message, ErrorCode code) {
  problems_.add(Problem{code, std::move(message), path_, line, {}});
}

void YamlReader::note(int line, const std::string& message) { notes_.push_back("line " + std::to_string(line) + ": " + message); }

std::string YamlReader::hint(const std::string& key, const std::vector<std::string>& known) const {
  const std::string near = suggestion(key, known);
  if (!near.empty()) return near;
  std::string lower = key;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto has = [&](std::string_view name) { return std::find(known.begin(), known.end(), name) != known.end(); };
  if (has("parameters") && is_parameter(lower)) return " It is a parameter: write '" + lower + "' under 'parameters'.";
  if (has("tokenizer") && lower == "pad_to_multiple_of") return " It belongs under 'tokenizer'.";
  if (has("filter") && lower == "pattern") return " Did you mean 'filter'?";
  if (has("experts") && (lower == "merge_method" || lower == "models" || lower == "slices" || lower == "parameters"))
    return " A configuration with 'experts' or 'recipe' assembles a mixture; '" + lower + "' belongs to a merge.";
  if (has("model") && lower == "lora")
    return " An adapter is part of the model: write model: MODEL+LORA, or model: {model: MODEL, lora: LORA}.";
  return {};
}

void YamlReader::read_map(const YAML::Node& node, std::string_view what, const std::vector<std::string>& known,
                          const std::function<bool(const std::string&, const YAML::Node&)>& handle) {
  std::set<std::string> seen;
  read_entries(node, what, known, handle, seen);
}

void YamlReader::read_entries(const YAML::Node& node, std::string_view what, const std::vector<std::string>& known,
                              const std::function<bool(const std::string&, const YAML::Node&)>& handle, std::set<std::string>& seen) {
  if (!node.IsMap()) {
    problem(line_of(node), std::string(what) + " must be a mapping of keys to values");
    return;
  }
  YAML::Node merged;
  for (const auto& pair : node) {
    const std::string& key = pair.first.Scalar();
    if (key == "<<") {
      merged.reset(pair.second);
      continue;
    }
    if (!seen.insert(key).second || handle(key, pair.second)) continue;
    const std::string message = "unknown key '" + printable(key, 60) + "' in " + std::string(what) + "." + hint(key, known);
    if (options_.lenient) {
      warnings_.push_back(path_ + ":" + std::to_string(line_of(pair.first)) + ": " + message + " It is ignored (--lenient).");
    } else {
      problem(line_of(pair.first), message);
    }
  }
  // A mapping's own keys win over those it merges, and an earlier source over a later one.
  const auto read_source = [&](const YAML::Node& source) {
    if (source.IsMap())
      read_entries(source, what, known, handle, seen);
    else
      problem(line_of(source), "'<<' must be given a mapping, or a list of mappings");
  };
  if (merged.IsSequence()) {
    for (const YAML::Node& source : merged) read_source(source);
  } else if (!merged.IsNull()) {
    read_source(merged);
  }
}

std::optional<std::string> YamlReader::text(const YAML::Node& node, std::string_view what) {
  if (!node.IsScalar()) {
    problem(line_of(node), std::string(what) + " must be plain text");
    return std::nullopt;
  }
  return node.Scalar();
}

std::optional<double> YamlReader::number(const YAML::Node& node, std::string_view what) {
  if (node.IsScalar() && !is_non_finite(node.Scalar())) {
    if (const auto value = as_number(Scalar{node.Scalar()})) return value;
  }
  problem(line_of(node),
          std::string(what) + " must be a finite number" + (node.IsScalar() ? ", not '" + printable(node.Scalar(), 60) + "'" : ""));
  return std::nullopt;
}

std::optional<std::int64_t> YamlReader::integer(const YAML::Node& node, std::string_view what, std::int64_t least, std::int64_t most) {
  if (node.IsScalar()) {
    const auto value = as_number(Scalar{node.Scalar()});
    if (value && std::floor(*value) == *value && *value >= static_cast<double>(least) && *value <= static_cast<double>(most)) {
      return static_cast<std::int64_t>(*value);
    }
  }
  problem(line_of(node), std::string(what) + " must be a whole number from " + std::to_string(least) + " to " + std::to_string(most) +
                             (node.IsScalar() ? ", not '" + printable(node.Scalar(), 60) + "'" : ""));
  return std::nullopt;
}

std::optional<DType> YamlReader::dtype(const YAML::Node& node, std::string_view what) {
  const auto name = text(node, what);
  if (!name) return std::nullopt;
  const auto type = dtype_from_config(*name);
  if (!type) {
    const bool later = *name == "fp8_block";
    problem(line_of(node),
            later ? std::string(what) + " cannot be fp8_block, which is for out_dtype of a merge alone"
                  : "unknown " + std::string(what) + " '" + printable(*name, 60) + "'; there are float64, float32, float16 and bfloat16." +
                        suggestion(*name, kDtypes),
            later ? ErrorCode::kUnsupported : ErrorCode::kInvalidConfig);
  }
  return type;
}

std::optional<ModelReference> YamlReader::model(const YAML::Node& node, std::string_view what) {
  const int line = line_of(node);
  ModelReference reference;
  try {
    if (node.IsScalar()) {
      reference = parse_model_reference(node.Scalar());
    } else if (node.IsMap()) {
      const auto read_path = [&](const YAML::Node& part, std::string& path, std::optional<std::string>& revision) {
        if (part.IsScalar()) {
          const ModelReference parsed = parse_model_reference(part.Scalar());
          if (parsed.lora)
            problem(line_of(part), "'" + printable(part.Scalar()) + "' is not the place for '+'; write lora: as a key of its own");
          path = parsed.path;
          revision = parsed.revision;
          return;
        }
        read_map(part, "a model path", {"path", "revision"}, [&](const std::string& key, const YAML::Node& value) {
          if (key == "path")
            path = text(value, "path").value_or("");
          else if (key == "revision") {
            if (!value.IsNull()) revision = text(value, "revision");
          } else
            return false;
          return true;
        });
      };
      read_map(node, what, {"model", "lora", "override_architecture", "path", "revision"},
               [&](const std::string& key, const YAML::Node& value) {
                 if (key == "model")
                   read_path(value, reference.path, reference.revision);
                 else if (key == "path")
                   reference.path = text(value, "path").value_or("");
                 else if (key == "revision") {
                   if (!value.IsNull()) reference.revision = text(value, "revision");
                 } else if (key == "lora") {
                   if (!value.IsNull()) read_path(value, reference.lora.emplace(), reference.lora_revision);
                 } else if (key == "override_architecture") {
                   if (!value.IsNull()) reference.override_architecture = text(value, "override_architecture");
                 } else
                   return false;
                 return true;
               });
      if (reference.path.empty()) {
        problem(line, std::string(what) + " names no model; write model: {path: …}");
        return std::nullopt;
      }
    } else {
      problem(line, std::string(what) + " must name a model: a path, org/name, name@revision, or a mapping");
      return std::nullopt;
    }
  } catch (const Error& error) {
    problem(line, error.problems().front().message);
    return std::nullopt;
  }
  if (reference.lora)
    unsupported(line, "merging the LoRA adapter '" + printable(*reference.lora) + "' into '" + printable(reference.path) +
                          "' comes with a later version");
  return reference;
}

std::vector<std::string> YamlReader::texts(const YAML::Node& node, std::string_view what) {
  std::vector<std::string> result;
  if (node.IsNull()) return result;
  if (!node.IsSequence()) {
    problem(line_of(node), std::string(what) + " must be a list of texts");
    return result;
  }
  for (const YAML::Node& element : node) {
    if (const auto value = text(element, what)) result.push_back(*value);
  }
  return result;
}

std::vector<std::vector<std::int64_t>> YamlReader::token_ids(const YAML::Node& node, std::string_view what) {
  std::vector<std::vector<std::int64_t>> result;
  if (!node.IsSequence() || node.size() == 0) {
    problem(line_of(node), std::string(what) + " must be a list of lists of token ids, such as [[1, 529], [1, 42, 7]]");
    return result;
  }
  for (const YAML::Node& prompt : node) {
    if (!prompt.IsSequence() || prompt.size() == 0) {
      problem(line_of(prompt), std::string(what) + " must be a list of lists of token ids, such as [[1, 529], [1, 42, 7]]");
      return result;
    }
    std::vector<std::int64_t>& ids = result.emplace_back();
    for (const YAML::Node& id : prompt) {
      if (const auto value = integer(id, "a token id", 0, std::numeric_limits<std::int32_t>::max())) ids.push_back(*value);
    }
  }
  return result;
}

const MethodInfo* YamlReader::method(std::string_view name) const {
  const auto found = std::find_if(methods_.begin(), methods_.end(), [&](const MethodInfo& info) { return info.name == name; });
  return found == methods_.end() ? nullptr : &*found;
}

bool YamlReader::is_parameter(std::string_view name) const {
  const auto has = [&](const MethodInfo& info) {
    return std::any_of(info.parameters.begin(), info.parameters.end(),
                       [&](const ParameterInfo& parameter) { return parameter.name == name; });
  };
  return std::any_of(methods_.begin(), methods_.end(), has) ||
         std::find(kParametersOfOtherMethods.begin(), kParametersOfOtherMethods.end(), name) != kParametersOfOtherMethods.end();
}

void YamlReader::check_parameter_name(const std::string& name, int line, const MethodInfo* method) {
  if (method == nullptr || !method->implemented) return;
  const bool has = std::any_of(method->parameters.begin(), method->parameters.end(),
                               [&](const ParameterInfo& parameter) { return parameter.name == name; });
  if (has) return;
  if (is_parameter(name)) {
    note(line, "parameter '" + name + "' has no effect on method '" + method->name + "'");
    return;
  }
  std::vector<std::string> known;
  for (const ParameterInfo& parameter : method->parameters) known.push_back(parameter.name);
  const std::string message =
      "unknown parameter '" + printable(name, 60) + "' for method '" + method->name + "'." + suggestion(name, known);
  if (options_.lenient) {
    warnings_.push_back(path_ + ":" + std::to_string(line) + ": " + message + " It is ignored (--lenient).");
  } else {
    problem(line, message);
  }
}

ParameterMap YamlReader::parameters(const YAML::Node& node, const MethodInfo* method) {
  ParameterMap result;
  if (node.IsNull()) return result;
  read_map(node, "parameters", {}, [&](const std::string& name, const YAML::Node& value) {
    if (method == nullptr && !is_parameter(name)) return true;
    check_parameter_name(name, line_of(value), method);
    if (auto read = setting(name, value)) result.push_back({name, std::move(*read)});
    return true;
  });
  return result;
}

std::optional<ParameterSetting> YamlReader::setting(const std::string& name, const YAML::Node& node) {
  ParameterSetting result;
  result.line = line_of(node);
  const bool is_list_of_mappings = node.IsSequence() && node.size() != 0 && node[0].IsMap();
  if (node.IsMap()) {
    auto one = conditional(name, node);
    if (!one) return std::nullopt;
    result.conditions.push_back(std::move(*one));
  } else if (is_list_of_mappings) {
    for (const YAML::Node& element : node) {
      auto one = conditional(name, element);
      if (!one) return std::nullopt;
      result.conditions.push_back(std::move(*one));
    }
  } else {
    ConditionalValue value;
    if (!gradient(name, node, value)) return std::nullopt;
    result.conditions.push_back(std::move(value));
  }
  return result;
}

std::optional<ConditionalValue> YamlReader::conditional(const std::string& name, const YAML::Node& node) {
  ConditionalValue result;
  bool has_value = false;
  bool good = true;
  const std::size_t before = problems_.problems().size();
  read_map(node, "an entry of '" + name + "'", {"filter", "value"}, [&](const std::string& key, const YAML::Node& value) {
    if (key == "filter") {
      if (!value.IsNull()) result.filter = text(value, "filter");
    } else if (key == "value") {
      has_value = true;
      good = gradient(name, value, result);
    } else {
      return false;
    }
    return true;
  });
  if (!has_value && problems_.problems().size() == before) problem(line_of(node), "an entry of '" + name + "' has no 'value'");
  return has_value && good ? std::optional(std::move(result)) : std::nullopt;
}

bool YamlReader::gradient(const std::string& name, const YAML::Node& node, ConditionalValue& result) {
  if (!node.IsSequence()) {
    const auto value = scalar(name, node);
    if (value) result.gradient = {*value};
    return value.has_value();
  }
  result.is_gradient = true;
  for (const YAML::Node& element : node) {
    const auto value = scalar(name, element);
    if (!value) return false;
    result.gradient.push_back(*value);
  }
  return true;
}

std::optional<Scalar> YamlReader::scalar(const std::string& name, const YAML::Node& node) {
  if (!node.IsScalar()) {
    problem(line_of(node),
            "parameter '" + name + "' must be a number, true or false, a list of numbers (a gradient), or a list of {filter, value}");
    return std::nullopt;
  }
  const std::string& text = node.Scalar();
  if (is_non_finite(text)) {
    problem(line_of(node), "parameter '" + name + "' must be finite, not '" + printable(text, 60) + "'");
    return std::nullopt;
  }
  if (!is_quoted(node)) {
    if (const auto flag = plain_bool(text)) return Scalar{*flag};
  }
  if (const auto number = as_number(Scalar{text})) return Scalar{*number};
  if (as_bool(Scalar{text})) return Scalar{text};
  problem(line_of(node), "parameter '" + name + "' must be a number, true or false, not '" + printable(text, 60) + "'");
  return std::nullopt;
}

}  // namespace moeweld::config
