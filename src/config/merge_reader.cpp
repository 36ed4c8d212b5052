#include "config/merge_reader.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "config/yaml_document.h"
#include "moeweld/base/text.h"

namespace moeweld::config {

namespace {

constexpr std::int64_t kMostLayers = 100'000;

const std::vector<std::string> kTopKeys = {"models",           "slices", "modules",   "merge_method", "base_model",
                                           "parameters",       "dtype",  "out_dtype", "tokenizer",    "chat_template",
                                           "tokenizer_source", "name",   "mtp",       "align_experts"};

class MergeReader {
 public:
  explicit MergeReader(YamlReader& reader) : reader_(reader) {}

  MergeConfig read(const YAML::Node& root) {
    read_method(root);
    int models_line = 0;
    int slices_line = 0;
    int modules_line = 0;
    int tokenizer_line = 0;
    int tokenizer_source_line = 0;
    reader_.read_map(root, "the configuration", kTopKeys, [&](const std::string& key, const YAML::Node& value) {
      const int line = line_of(value);
      if (key == "merge_method") return true;
      if (key == "base_model") {
        config_.base_model_line = line;
        if (!value.IsNull()) config_.base_model = reader_.model(value, "base_model");
      } else if (key == "models") {
        if (value.IsNull()) return true;
        models_line = line;
        OutputModule module{.name = "default", .models = read_models(value), .slices = {}, .parameters = {}, .line = line};
        config_.modules.push_back(std::move(module));
      } else if (key == "slices") {
        if (value.IsNull()) return true;
        slices_line = line;
        OutputModule module{.name = "default", .models = {}, .slices = read_slices(value), .parameters = {}, .line = line};
        config_.modules.push_back(std::move(module));
      } else if (key == "modules") {
        if (value.IsNull()) return true;
        modules_line = line;
        config_.is_whole_model = false;
        read_modules(value);
      } else if (key == "parameters") {
        config_.parameters = reader_.parameters(value, method_);
      } else if (key == "dtype") {
        if (!value.IsNull()) config_.dtype = reader_.dtype(value, "dtype");
      } else if (key == "out_dtype") {
        config_.out_dtype_line = line;
        config_.out_fp8_block = value.IsScalar() && value.Scalar() == "fp8_block";
        if (!value.IsNull() && !config_.out_fp8_block) config_.out_dtype = reader_.dtype(value, "out_dtype");
      } else if (key == "mtp") {
        if (!value.IsNull()) read_mtp(value);
      } else if (key == "align_experts") {
        if (!value.IsNull()) read_align_experts(value);
      } else if (key == "tokenizer_source") {
        if (value.IsNull()) return true;
        tokenizer_source_line = line;
        config_.tokenizer.emplace().line = line;
        read_tokenizer_source(value);
      } else if (key == "tokenizer") {
        if (value.IsNull()) return true;
        tokenizer_line = line;
        config_.tokenizer.emplace().line = line;
        read_tokenizer(value);
      } else if (key == "chat_template") {
        config_.chat_template_line = line;
        if (!value.IsNull()) config_.chat_template = reader_.text(value, "chat_template");
      } else if (key == "name") {
        reader_.note(line, "'name' has no effect: OUT names the result");
      } else {
        return false;
      }
      return true;
    });
    const int given = (models_line != 0) + (slices_line != 0) + (modules_line != 0);
    if (given != 1) {
      reader_.problem(given == 0 ? line_of(root) : std::max({models_line, slices_line, modules_line}),
                      given == 0 ? "one of 'models', 'slices' and 'modules' must be there"
                                 : "only one of 'models', 'slices' and 'modules' may be there");
    }
    if (tokenizer_line != 0 && tokenizer_source_line != 0) {
      reader_.problem(std::max(tokenizer_line, tokenizer_source_line), "'tokenizer' and 'tokenizer_source' cannot both be there");
    }
    return std::move(config_);
  }

 private:
  void read_method(const YAML::Node& root) {
    const YAML::Node node = root["merge_method"];
    if (!node || node.IsNull()) {
      reader_.problem(line_of(root), "'merge_method' is missing");
      return;
    }
    config_.merge_method_line = line_of(node);
    const auto name = reader_.text(node, "merge_method");
    if (!name) return;
    config_.merge_method = *name;
    method_ = reader_.method(*name);
    if (method_ == nullptr) {
      std::vector<std::string> names;
      for (const MethodInfo& info : reader_.methods()) names.push_back(info.name);
      const auto near = nearest(*name, names);
      reader_.problem(config_.merge_method_line, "unknown merge method '" + printable(*name, 60) + "'." +
                                                     (near ? " Did you mean '" + *near + "'?" : " `moeweld methods` lists them."));
    } else if (!method_->implemented) {
      reader_.unsupported(config_.merge_method_line,
                          "merge method '" + *name + "' comes with a later version; `moeweld methods` lists those that are there.");
    }
  }

  /// A list of mappings, each of which makes an Entry. `handle(entry, key, value)` is as in YamlReader::read_map; `required` are the keys
  /// that every mapping must have, with what to say if it has not.
  template <typename Entry, typename Handle>
  std::vector<Entry> read_list(const YAML::Node& node, const std::string& name, const std::string& entry_name,
                               const std::vector<std::string>& keys, const std::vector<std::pair<std::string, std::string>>& required,
                               const Handle& handle) {
    std::vector<Entry> result;
    if (!node.IsSequence() || node.size() == 0) {
      reader_.problem(line_of(node), name + " must be a list of mappings, at least one, each " + entry_name);
      return result;
    }
    for (const YAML::Node& element : node) {
      Entry entry;
      entry.line = line_of(element);
      std::set<std::string> seen;
      reader_.read_map(element, entry_name, keys, [&](const std::string& key, const YAML::Node& value) {
        seen.insert(key);
        return handle(entry, key, value);
      });
      for (const auto& [key, message] : required) {
        if (element.IsMap() && !seen.contains(key)) reader_.problem(entry.line, message);
      }
      result.push_back(std::move(entry));
    }
    return result;
  }

  /// The keys that an entry of 'models' and a source of a slice share.
  template <typename Entry>
  bool read_model_or_parameters(Entry& entry, const std::string& key, const YAML::Node& value) {
    if (key == "model") {
      if (auto model = reader_.model(value, "model")) entry.model = std::move(*model);
    } else if (key == "parameters") {
      entry.parameters = reader_.parameters(value, method_);
    } else {
      return false;
    }
    return true;
  }

  std::vector<InputModel> read_models(const YAML::Node& node) {
    return read_list<InputModel>(
        node, "'models'", "an entry of 'models'", {"model", "parameters"}, {{"model", "an entry of 'models' has no 'model'"}},
        [&](InputModel& input, const std::string& key, const YAML::Node& value) { return read_model_or_parameters(input, key, value); });
  }

  std::vector<OutputSlice> read_slices(const YAML::Node& node) {
    return read_list<OutputSlice>(node, "'slices'", "a slice", {"sources", "base_model", "parameters", "residual_weight"},
                                  {{"sources", "a slice has no 'sources'"}},
                                  [&](OutputSlice& slice, const std::string& key, const YAML::Node& value) {
                                    if (key == "sources") {
                                      slice.sources = read_sources(value);
                                    } else if (key == "base_model") {
                                      if (!value.IsNull()) slice.base_model = reader_.model(value, "base_model");
                                    } else if (key == "parameters") {
                                      slice.parameters = reader_.parameters(value, method_);
                                    } else if (key == "residual_weight") {
                                      reader_.note(line_of(value), "'residual_weight' has no effect");
                                    } else {
                                      return false;
                                    }
                                    return true;
                                  });
  }

  std::vector<InputSlice> read_sources(const YAML::Node& node) {
    return read_list<InputSlice>(
        node, "'sources'", "a source", {"model", "layer_range", "parameters"},
        {{"model", "a source has no 'model'"}, {"layer_range", "a source has no 'layer_range'; write layer_range: [first, end]"}},
        [&](InputSlice& source, const std::string& key, const YAML::Node& value) {
          if (key != "layer_range") return read_model_or_parameters(source, key, value);
          read_layer_range(value, source);
          return true;
        });
  }

  void read_layer_range(const YAML::Node& node, InputSlice& source) {
    if (!node.IsSequence() || node.size() != 2) {
      reader_.problem(line_of(node), "'layer_range' must be two whole numbers, [first, end]; the end is not included");
      return;
    }
    const auto first = reader_.integer(node[0], "the first layer of 'layer_range'", 0, kMostLayers);
    const auto end = reader_.integer(node[1], "the end of 'layer_range'", 0, kMostLayers);
    if (!first || !end) return;
    if (*end <= *first) {
      reader_.problem(line_of(node), "'layer_range' [" + std::to_string(*first) + ", " + std::to_string(*end) +
                                         "] holds no layer; the end is not included");
      return;
    }
    source.first_layer = static_cast<std::uint32_t>(*first);
    source.end_layer = static_cast<std::uint32_t>(*end);
  }

  void read_modules(const YAML::Node& node) {
    if (!node.IsMap() || node.size() == 0) {
      reader_.problem(line_of(node), "'modules' must be a mapping from a module's name to its slices or models");
      return;
    }
    reader_.read_map(node, "modules", {}, [&](const std::string& name, const YAML::Node& value) {
      OutputModule module;
      module.name = name;
      module.line = line_of(value);
      reader_.read_map(value, "module '" + printable(name, 60) + "'", {"models", "slices", "parameters"},
                       [&](const std::string& key, const YAML::Node& inner) {
                         if (key == "models")
                           module.models = inner.IsNull() ? std::vector<InputModel>{} : read_models(inner);
                         else if (key == "slices")
                           module.slices = inner.IsNull() ? std::vector<OutputSlice>{} : read_slices(inner);
                         else if (key == "parameters")
                           module.parameters = reader_.parameters(inner, method_);
                         else
                           return false;
                         return true;
                       });
      if (module.models.empty() == module.slices.empty()) {
        reader_.problem(module.line, "module '" + printable(name, 60) + "' must have either 'models' or 'slices'");
      }
      config_.modules.push_back(std::move(module));
      return true;
    });
  }

  void read_mtp(const YAML::Node& node) {
    const auto mode = reader_.text(node, "mtp");
    if (!mode) return;
    if (*mode == "merge") {
      config_.mtp = MtpMode::kMerge;
    } else if (*mode == "base") {
      config_.mtp = MtpMode::kBase;
    } else if (*mode == "drop") {
      config_.mtp = MtpMode::kDrop;
    } else {
      reader_.problem(line_of(node), "'mtp' is '" + printable(*mode, 60) + "', but must be merge, base or drop");
    }
  }

  std::optional<bool> flag(const YAML::Node& node, const std::string& what) {
    const auto text = node.IsScalar() ? std::optional(node.Scalar()) : std::nullopt;
    const auto value = text ? as_bool(Scalar(*text)) : std::nullopt;
    if (!value) reader_.problem(line_of(node), what + " must be true or false" + (text ? ", not '" + printable(*text, 60) + "'" : ""));
    return value;
  }

  void read_align_experts(const YAML::Node& node) {
    AlignExperts align{.line = line_of(node)};
    if (!node.IsMap()) {
      if (flag(node, "'align_experts', where it is no mapping of 'match' and 'neurons',").value_or(false)) config_.align_experts = align;
      return;
    }
    reader_.read_map(node, "align_experts", {"match", "neurons"}, [&](const std::string& key, const YAML::Node& value) {
      if (key == "neurons") {
        align.neurons = flag(value, "'neurons'").value_or(true);
      } else if (key == "match") {
        const auto match = reader_.text(value, "match");
        if (!match) return true;
        if (*match == "router") {
          align.match = AlignExperts::Match::kRouter;
        } else if (*match == "weights") {
          align.match = AlignExperts::Match::kWeights;
        } else if (*match != "both") {
          reader_.problem(line_of(value), "'match' is '" + printable(*match, 60) + "', but must be router, weights or both");
        }
      } else {
        return false;
      }
      return true;
    });
    config_.align_experts = align;
  }

  void read_tokenizer_source(const YAML::Node& node) {
    TokenizerConfig& tokenizer = *config_.tokenizer;
    if (node.IsScalar() && node.Scalar() == "union") {
      tokenizer.source = TokenizerConfig::Source::kUnion;
    } else if (node.IsScalar() && node.Scalar() == "base") {
      tokenizer.source = TokenizerConfig::Source::kBase;
    } else if (node.IsScalar() && node.Scalar().rfind("model:", 0) == 0) {
      reader_.problem(line_of(node), "the tokenizer's source is 'base', 'union' or a model as it is named elsewhere; write '" +
                                         printable(node.Scalar().substr(6), 100) + "' without 'model:'");
    } else if (auto model = reader_.model(node, "the tokenizer's source")) {
      tokenizer.source = TokenizerConfig::Source::kModel;
      tokenizer.model = std::move(*model);
    }
  }

  void read_tokenizer(const YAML::Node& node) {
    reader_.read_map(node, "tokenizer", {"source", "tokens", "pad_to_multiple_of"}, [&](const std::string& key, const YAML::Node& value) {
      if (key == "source") {
        if (!value.IsNull()) read_tokenizer_source(value);
      } else if (key == "tokens") {
        config_.tokenizer->has_token_rules = value.IsMap() && value.size() != 0;
        if (!value.IsMap() && !value.IsNull()) reader_.problem(line_of(value), "'tokens' must be a mapping from a token to its rule");
      } else if (key == "pad_to_multiple_of") {
        if (value.IsNull()) return true;
        if (const auto multiple = reader_.integer(value, "pad_to_multiple_of", 1, 1 << 20)) {
          config_.tokenizer->pad_to_multiple_of = static_cast<std::uint32_t>(*multiple);
        }
      } else {
        return false;
      }
      return true;
    });
  }

  YamlReader& reader_;
  MergeConfig config_;
  const MethodInfo* method_ = nullptr;
};

}  // namespace

MergeConfig read_merge_config(const YAML::Node& root, YamlReader& reader) { return MergeReader(reader).read(root); }

std::vector<ModelReference> MergeConfig::referenced_models() const {
  std::vector<ModelReference> result;
  const auto add = [&](const ModelReference& model) {
    if (std::find(result.begin(), result.end(), model) == result.end()) result.push_back(model);
  };
  if (base_model) add(*base_model);
  for (const OutputModule& module : modules) {
    for (const InputModel& input : module.models) add(input.model);
    for (const OutputSlice& slice : module.slices) {
      if (slice.base_model) add(*slice.base_model);
      for (const InputSlice& source : slice.sources) add(source.model);
    }
  }
  return result;
}

int MergeConfig::line_of(const ModelReference& model) const {
  for (const OutputModule& module : modules) {
    for (const InputModel& input : module.models) {
      if (input.model == model) return input.line;
    }
    for (const OutputSlice& slice : module.slices) {
      for (const InputSlice& source : slice.sources) {
        if (source.model == model) return source.line;
      }
      if (slice.base_model == model) return slice.line;
    }
  }
  return base_model == model ? base_model_line : 0;
}

}  // namespace moeweld::config
