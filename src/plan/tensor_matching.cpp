#include "plan/tensor_matching.h"

#include <algorithm>
#include <climits>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "plan/grouped_problems.h"
#include "plan/tensor_order.h"

namespace moeweld::plan {
namespace {

using model::CatalogEntry;
using model::Place;
using model::TensorKey;

const TensorKey kHeadKey{-1, -1, "lm_head"};
const TensorKey kEmbeddingKey{-1, -1, "token_embedding"};

/// Whether the dotted name holds `word` as a run of whole components.
bool has_components(std::string_view name, std::string_view word) {
  for (std::size_t at = name.find(word); at != std::string_view::npos; at = name.find(word, at + 1)) {
    const bool starts = at == 0 || name[at - 1] == '.';
    const bool ends = at + word.size() == name.size() || name[at + word.size()] == '.';
    if (starts && ends) return true;
  }
  return false;
}

/// What a role of one family says, worked out once per role.
struct RoleFacts {
  int module = -1;     ///< index into modules, -1: none covers it
  std::string prefix;  ///< of its layers
};

class Matcher {
 public:
  Matcher(const std::vector<Module>& modules, const InputModels& inputs, bool allow_crimes, config::MtpMode mtp,
          const std::string& config_path, ProblemList& problems)
      : modules_(modules), inputs_(inputs), allow_crimes_(allow_crimes), mtp_(mtp), config_path_(config_path), problems_(problems) {
    used_.resize(inputs.all().size());
    by_name_.resize(inputs.all().size());
    layers_used_.resize(inputs.all().size());
    role_facts_.resize(inputs.all().size());
  }

  Matching run() {
    bool all_well = true;
    for (std::size_t module = 0; module < modules_.size(); ++module) {
      const std::size_t before = matching_.tensors.size();
      const bool is_well = check_module(module);
      if (is_well) match_module(module);
      all_well = all_well && is_well && has_tensors(module, matching_.tensors.size() - before);
    }
    // What a refused module would have used is not lost.
    if (all_well) account_for_all();
    groups_.report(problems_);
    return std::move(matching_);
  }

 private:
  void config_problem(std::string message, int line, ErrorCode code = ErrorCode::kInvalidConfig) {
    problems_.add({code, std::move(message), config_path_, line, {}});
  }

  const RoleFacts& facts(std::uint32_t model, const TensorKey& key) {
    const auto [known, is_new] = role_facts_[model].try_emplace(key.role);
    if (is_new) {
      const std::string name =
          model::tensor_name(inputs_[model].catalog.family, {key.layer >= 0 ? 0 : -1, key.expert >= 0 ? 0 : -1, key.role});
      if (key.layer >= 0) known->second.prefix = model::layer_prefix(name);
      known->second.module = module_of(key.layer >= 0 ? std::string_view(name).substr(0, name.find(".0.")) : std::string_view(name));
    }
    return known->second;
  }

  /// The most particular module that names a part of the tensor's path, else "default".
  int module_of(std::string_view path) const {
    int result = -1;
    std::size_t best = 0;
    for (std::size_t i = 0; i < modules_.size(); ++i) {
      const std::string& name = modules_[i].name;
      if (name == "default") {
        if (result < 0) result = static_cast<int>(i);
      } else if (name.size() > best && has_components(path, name)) {
        result = static_cast<int>(i);
        best = name.size();
      }
    }
    return result;
  }

  /// Layer prefixes of a model that belong to a module, with their number of layers.
  std::map<std::string, int> prefixes(std::uint32_t model, std::size_t module) const {
    std::map<std::string, int> result;
    for (const auto& [prefix, count] : inputs_[model].catalog.num_layers) {
      if (module_of(prefix) == static_cast<int>(module)) result.emplace(prefix, count);
    }
    return result;
  }

  bool check_module(std::size_t index) {
    const Module& module = modules_[index];
    const std::size_t before = problems_.problems().size();
    for (const Slice& slice : module.slices) {
      const InputModel& donor = inputs_[slice.sources[static_cast<std::size_t>(slice.donor)].model];
      const auto donor_prefixes = prefixes(slice.sources[static_cast<std::size_t>(slice.donor)].model, index);
      for (const SliceSource& source : slice.sources) {
        const InputModel& input = inputs_[source.model];
        const auto own = prefixes(source.model, index);
        if (slice.whole_model) {
          for (const auto& [prefix, count] : own) {
            const auto found = donor_prefixes.find(prefix);
            if (found == donor_prefixes.end() || found->second == count) continue;
            config_problem("'" + donor.label + "' has " + std::to_string(found->second) + " layers and '" + input.label + "' " +
                               std::to_string(count) + " ('" + prefix + "'). All models must have equally many; slices: can pick layers.",
                           source.line);
          }
          continue;
        }
        if (own.size() > 1) {
          std::string names;
          for (const auto& [prefix, count] : own) names += (names.empty() ? "'" : ", '") + prefix + "' (" + std::to_string(count) + ")";
          config_problem("'" + input.label + "' has several stacks of layers: " + names +
                             ". Slices need one: write modules: with one entry for each stack.",
                         source.line);
          continue;
        }
        const int available = own.empty() ? 0 : own.begin()->second;
        if (source.first_layer + slice.num_layers > available) {
          config_problem("layer_range [" + std::to_string(source.first_layer) + ", " +
                             std::to_string(source.first_layer + slice.num_layers) + "] reaches beyond '" + input.label + "', which has " +
                             std::to_string(available) + " layers.",
                         source.line);
        }
      }
    }
    return problems_.problems().size() == before;
  }

  /// A module that is given nothing is a slip of the pen, unless it is the one for the rest.
  bool has_tensors(std::size_t index, std::size_t num_matched) {
    const Module& module = modules_[index];
    if (num_matched != 0 || module.name == "default") return true;
    const InputModel& donor = inputs_[module.slices.front().sources.front().model];
    std::string stacks;
    for (const auto& [prefix, count] : donor.catalog.num_layers) stacks += (stacks.empty() ? "'" : ", '") + prefix + "'";
    config_problem("no tensor of '" + donor.label + "' belongs to module '" + module.name +
                       "': a module's name is a part of its tensors' names. The stacks of layers are " + stacks + ".",
                   module.line);
    return false;
  }

  void match_module(std::size_t index) {
    const Module& module = modules_[index];
    // Layers first: whatever has none is matched around them.
    std::vector<MatchedTensor> layers;
    for (const Slice& slice : module.slices) {
      const std::uint32_t donor = slice.sources[static_cast<std::size_t>(slice.donor)].model;
      for (const auto& [prefix, count] : prefixes(donor, index)) {
        const int num_layers = slice.whole_model ? count : slice.num_layers;
        for (int i = 0; i < num_layers; ++i) match_layer(module, index, slice, prefix, i, num_layers, layers);
        matching_.num_layers = std::max(matching_.num_layers, slice.first_output_layer + num_layers);
        if (slice.whole_model) match_mtp_layers(module, index, slice, prefix, count, layers);
      }
    }
    match_outside(module, index, module.slices.front(), Place::kBeforeLayers);
    std::move(layers.begin(), layers.end(), std::back_inserter(matching_.tensors));
    match_outside(module, index, module.slices.back(), Place::kAfterLayers);
  }

  /// They come after the others; slices do not reach them.
  void match_mtp_layers(const Module& module, std::size_t module_index, const Slice& slice, const std::string& prefix, int num_layers,
                        std::vector<MatchedTensor>& out) {
    if (mtp_ == config::MtpMode::kDrop) return;
    const Slice* source = &slice;
    if (mtp_ == config::MtpMode::kBase) {
      source = matching_.base_slices.emplace_back(std::make_unique<Slice>()).get();
      *matching_.base_slices.back() = {.sources = {{.model = 0, .line = slice.line}}, .whole_model = true, .line = slice.line};
    }
    const std::uint32_t donor = source->sources[static_cast<std::size_t>(source->donor)].model;
    const int num_mtp_layers = inputs_[donor].catalog.num_mtp_layers;
    const std::size_t first = out.size();
    for (int i = num_layers; i < num_layers + num_mtp_layers; ++i) match_layer(module, module_index, *source, prefix, i, i + 1, out);
    for (std::size_t i = first; i < out.size(); ++i) out[i].is_taken = mtp_ == config::MtpMode::kBase;
    matching_.num_mtp_layers += num_mtp_layers;
  }

  void match_layer(const Module& module, std::size_t module_index, const Slice& slice, const std::string& prefix, int i, int num_layers,
                   std::vector<MatchedTensor>& out) {
    const SliceSource& donor = slice.sources[static_cast<std::size_t>(slice.donor)];
    const auto& entries = inputs_[donor.model].catalog.entries;
    const double t = num_layers > 1 ? static_cast<double>(i) / (num_layers - 1) : 1.0;
    const std::size_t first = out.size();
    for (const SliceSource& source : slice.sources) layers_used_[source.model].insert({prefix, source.first_layer + i});
    const TensorKey begin{donor.first_layer + i, INT_MIN, {}};
    for (auto entry = entries.lower_bound(begin); entry != entries.end() && entry->first.layer == begin.layer; ++entry) {
      const RoleFacts& role = facts(donor.model, entry->first);
      if (role.module != static_cast<int>(module_index) || role.prefix != prefix) continue;
      TensorKey key = entry->first;
      key.layer = slice.first_output_layer + i;
      add(module, slice, std::move(key), i, t, out);
    }
    sort_tensors(out.begin() + static_cast<std::ptrdiff_t>(first), out.end(), inputs_[donor.model].catalog.family);
  }

  void match_outside(const Module& module, std::size_t module_index, const Slice& slice, Place place) {
    const std::uint32_t donor = slice.sources[static_cast<std::size_t>(slice.donor)].model;
    const model::Catalog& catalog = inputs_[donor].catalog;
    const std::size_t first = matching_.tensors.size();
    bool has_head = false;
    for (auto entry = catalog.entries.begin(); entry != catalog.entries.end() && entry->first.layer < 0; ++entry) {
      if ((entry->second.place == Place::kAfterLayers) != (place == Place::kAfterLayers)) continue;
      if (facts(donor, entry->first).module != static_cast<int>(module_index)) continue;
      has_head = has_head || entry->first == kHeadKey;
      if (!outside_.insert(entry->first).second) continue;
      add(module, slice, entry->first, -1, 0, matching_.tensors);
    }
    // A tied donor takes part in the others' heads with its embedding.
    if (place == Place::kAfterLayers && catalog.family != nullptr && !has_head) {
      const bool any = std::any_of(slice.sources.begin(), slice.sources.end(),
                                   [&](const SliceSource& source) { return find(source.model, catalog.family, kHeadKey) != nullptr; });
      if (any && outside_.insert(kHeadKey).second) {
        has_head = true;
        add(module, slice, kHeadKey, -1, 0, matching_.tensors);
      }
    }
    matching_.has_head = matching_.has_head || has_head;
    matching_.has_embedding_role = matching_.has_embedding_role || catalog.entries.contains(kEmbeddingKey);
    sort_tensors(matching_.tensors.begin() + static_cast<std::ptrdiff_t>(first), matching_.tensors.end(), catalog.family);
  }

  /// The entry of `model` for a key of `family`: by key where both have a table or neither, else by name.
  const CatalogEntry* find(std::uint32_t model, const model::Family* family, const TensorKey& key) {
    const model::Catalog& catalog = inputs_[model].catalog;
    if ((catalog.family == nullptr) == (family == nullptr)) {
      const auto found = catalog.entries.find(key);
      return found == catalog.entries.end() ? nullptr : &found->second;
    }
    auto& names = by_name_[model];
    if (names.empty()) {
      for (const auto& [own_key, entry] : catalog.entries) names.emplace(model::tensor_name(catalog.family, own_key), &entry);
    }
    const auto found = names.find(model::tensor_name(family, key));
    return found == names.end() ? nullptr : found->second;
  }

  void add(const Module& module, const Slice& slice, TensorKey key, int layer_in_slice, double t, std::vector<MatchedTensor>& out) {
    const InputModel& donor = inputs_[slice.sources[static_cast<std::size_t>(slice.donor)].model];
    MatchedTensor tensor;
    tensor.name = model::tensor_name(donor.catalog.family, key);
    tensor.module = &module;
    tensor.slice = &slice;
    tensor.layer_in_slice = layer_in_slice;
    tensor.t = t;
    tensor.inputs.reserve(slice.sources.size());
    for (const SliceSource& source : slice.sources) {
      TensorKey input_key = key;
      if (layer_in_slice >= 0) input_key.layer = source.first_layer + layer_in_slice;
      const CatalogEntry* entry = find(source.model, donor.catalog.family, input_key);
      if (entry == nullptr && key == kHeadKey) entry = find(source.model, donor.catalog.family, kEmbeddingKey);
      if (entry == nullptr) {
        const InputModel& input = inputs_[source.model];
        groups_.add("lacks\n" + input.label,
                    {ErrorCode::kInvalidInput,
                     "is in '" + donor.label + "' but not in '" + input.label +
                         "'. Models that are merged must have the same tensors; check that both are complete and of one kind.",
                     input.checkpoint->directory, 0, model::tensor_name(donor.catalog.family, input_key)});
        return;
      }
      used_[source.model].insert(entry);
      tensor.inputs.push_back(entry);
    }
    tensor.key = std::move(key);
    out.push_back(std::move(tensor));
  }

  void account_for_all() {
    for (std::uint32_t model = 0; model < inputs_.all().size(); ++model) {
      const InputModel& input = inputs_[model];
      for (const auto& [name, reason] : input.catalog.dropped) {
        const formats::CheckpointTensor* tensor = input.checkpoint->find(name);
        matching_.dropped.push_back({input.label, name, tensor == nullptr ? 0 : num_elements(tensor->shape), reason});
      }
      for (const auto& [key, entry] : input.catalog.entries) {
        if (!used_[model].contains(&entry)) account_for_unused(model, key, entry);
      }
    }
  }

  void account_for_unused(std::uint32_t model, const TensorKey& key, const CatalogEntry& entry) {
    const InputModel& input = inputs_[model];
    const auto drop = [&](std::string reason) {
      matching_.dropped.push_back(
          {input.label, model::tensor_name(input.catalog.family, key), num_elements(entry.shape), std::move(reason)});
    };
    const RoleFacts& role = facts(model, key);
    if (!takes_part(model)) return drop("the model only gives config.json or the tokenizer");
    if (role.module < 0) {
      groups_.add("module", {ErrorCode::kInvalidConfig,
                             "of '" + input.label +
                                 "' belongs to none of the modules of the config. Add a module named 'default' for what no other covers.",
                             config_path_, modules_.front().line, model::tensor_name(input.catalog.family, key)});
      return;
    }
    const Module& module = modules_[static_cast<std::size_t>(role.module)];
    bool mtp_is_lost = false;
    if (key.layer >= 0) {
      if (!layers_used_[model].contains({role.prefix, key.layer})) {
        const auto count = input.catalog.num_layers.find(role.prefix);
        const bool is_mtp = input.catalog.num_mtp_layers > 0 && count != input.catalog.num_layers.end() && key.layer >= count->second;
        if (!is_mtp) return drop("its layer is in no slice");
        if (mtp_ == config::MtpMode::kDrop) return drop("mtp: drop");
        if (!module.slices.front().whole_model) return drop("layers of multi-token prediction are merged with whole models only");
        if (mtp_ == config::MtpMode::kBase) return drop("mtp: base takes those of '" + inputs_[0].label + "'");
        mtp_is_lost = true;
      }
    } else {
      const Slice& slice = entry.place == Place::kAfterLayers ? module.slices.back() : module.slices.front();
      const bool in_slice =
          std::any_of(slice.sources.begin(), slice.sources.end(), [&](const SliceSource& source) { return source.model == model; });
      if (!in_slice)
        return drop(entry.place == Place::kAfterLayers ? "taken from the last slice's models" : "taken from the first slice's models");
    }
    if (allow_crimes_) return drop("the base (else the first model) has no such tensor");
    groups_.add("extra\n" + input.label,
                {ErrorCode::kInvalidInput,
                 "is only in '" + input.label + "' and would be lost: the base (else the first model) has no such tensor. " +
                     (mtp_is_lost ? "Leave layers of multi-token prediction out with 'mtp: drop'."
                                  : "Check that the models are of one kind; --allow-crimes drops such tensors."),
                 input.checkpoint->directory, 0, model::tensor_name(input.catalog.family, key)});
  }

  bool takes_part(std::uint32_t model) const {
    for (const Module& module : modules_) {
      for (const Slice& slice : module.slices) {
        for (const SliceSource& source : slice.sources) {
          if (source.model == model) return true;
        }
      }
    }
    return false;
  }

  const std::vector<Module>& modules_;
  const InputModels& inputs_;
  const bool allow_crimes_;
  config::MtpMode mtp_;
  const std::string& config_path_;
  ProblemList& problems_;
  GroupedProblems groups_;
  Matching matching_;
  std::set<TensorKey> outside_;                                                // keys without a layer that are matched
  std::vector<std::unordered_set<const CatalogEntry*>> used_;                  // by model
  std::vector<std::unordered_map<std::string, const CatalogEntry*>> by_name_;  // by model; filled on demand
  std::vector<std::set<std::pair<std::string, int>>> layers_used_;             // by model: prefix and layer
  std::vector<std::unordered_map<std::string, RoleFacts>> role_facts_;         // by model
};

}  // namespace

std::string input_name(const MatchedTensor& tensor, std::size_t source, const InputModels& inputs) {
  const Slice& slice = *tensor.slice;
  TensorKey key = tensor.key;
  if (tensor.layer_in_slice >= 0) key.layer = slice.sources[source].first_layer + tensor.layer_in_slice;
  return model::tensor_name(inputs[slice.sources[static_cast<std::size_t>(slice.donor)].model].catalog.family, key);
}

Matching match_tensors(const std::vector<Module>& modules, const InputModels& inputs, bool allow_crimes, config::MtpMode mtp,
                       const std::string& config_path, ProblemList& problems) {
  return Matcher(modules, inputs, allow_crimes, mtp, config_path, problems).run();
}

}  // namespace moeweld::plan
