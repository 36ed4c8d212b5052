#include "moeweld/model/catalog.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <set>
#include <unordered_map>

#include "model/block_scales.h"
#include "model/config_fields.h"
#include "moeweld/base/error.h"
#include "moeweld/model/tensor_name.h"

namespace moeweld::model {
namespace {

using formats::Checkpoint;
using formats::CheckpointTensor;
using formats::Json;

constexpr std::size_t kMaxListedProblems = 20;
constexpr std::size_t kMaxCountedProblems = 10000;
constexpr std::int64_t kMaxCount = 1'000'000;

std::optional<std::int64_t> config_integer(const Json& config, std::string_view key) {
  for (const Json* part : {&config, config.is_object() && config.contains("text_config") ? &config["text_config"] : nullptr}) {
    if (part == nullptr || !part->is_object()) continue;
    const auto found = part->find(std::string(key));
    if (found != part->end() && found->is_number_integer()) return found->get<std::int64_t>();
  }
  return std::nullopt;
}

bool has_component(std::string_view name, std::string_view component) {
  std::size_t begin = 0;
  while (begin <= name.size()) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    if (name.substr(begin, end - begin) == component) return true;
    begin = end + 1;
  }
  return false;
}

bool counts_tokens(std::string_view name, const Shape& shape, std::optional<std::int64_t> vocab_size) {
  static constexpr std::array<std::string_view, 8> kComponents{"embed_tokens", "wte",      "word_embeddings", "lm_head",
                                                               "shared",       "embed_in", "embed_out",       "tok_embeddings"};
  if (!vocab_size || shape.empty() || shape[0] != static_cast<std::uint64_t>(std::max<std::int64_t>(*vocab_size, 0))) return false;
  return std::any_of(kComponents.begin(), kComponents.end(), [&](std::string_view word) { return has_component(name, word); }) ||
         name.find("cls.predictions.decoder") != std::string_view::npos || name.ends_with("cls.predictions.bias");
}

Place place_of(std::string_view name, int layer) {
  if (layer >= 0) return Place::kLayer;
  if (has_component(name, "embed_out")) return Place::kAfterLayers;  // GPT-NeoX's head
  for (const std::string_view word : {"emb", "wte", "wpe", "shared"}) {
    if (name.find(word) != std::string_view::npos) return Place::kBeforeLayers;
  }
  return Place::kAfterLayers;
}

class Builder {
 public:
  Builder(const Checkpoint& checkpoint, const Family* family)
      : checkpoint_(checkpoint), vocab_size_(config_integer(checkpoint.config, "vocab_size")) {
    catalog_.family = family;
    if (family == nullptr) return;
    const auto is_fused = [&](std::string_view role) {
      return std::any_of(family->fused.begin(), family->fused.end(),
                         [&](const FusedRow& row) { return std::find(row.roles.begin(), row.roles.end(), role) != row.roles.end(); });
    };
    for (const TensorRow& row : family->tensors) {
      if (!family->always_fused || !is_fused(row.role)) rows_.emplace(row.name, &row);
    }
    for (const TensorRow& row : family->fused_names) rows_.emplace(row.name, find_row(*family, row.role));
    for (const FusedRow& row : family->fused) fused_.emplace(row.name, &row);
  }

  Catalog build() {
    read_counts();
    scales_ = pair_block_scales(checkpoint_, problems_);
    catalog_.has_block_scales = !scales_.of_weight.empty();
    if (catalog_.has_block_scales && !scales_.is_announced) {
      catalog_.notes.push_back("holds block-scaled FP8, though config.json has no quantization_config that says so; it is read as such");
    }
    for (std::uint32_t index = 0; index < checkpoint_.tensors.size(); ++index) {
      problems_.attempt([&] { add_tensor(index); });
    }
    if (catalog_.family != nullptr) {
      check_counts();
      check_tensors();
      catalog_.tied_head = !catalog_.entries.contains({-1, -1, "lm_head"});
    }
    problems_.throw_if_any();
    return std::move(catalog_);
  }

 private:
  void problem(std::string message, std::string tensor = {}) {
    problems_.add({.code = ErrorCode::kInvalidInput,
                   .message = std::move(message),
                   .path = tensor.empty() ? checkpoint_.directory + "/config.json" : checkpoint_.directory,
                   .tensor = std::move(tensor)});
  }

  void read_counts() {
    if (catalog_.family == nullptr) return;
    const Family& family = *catalog_.family;
    config_layers_ = positive_count(family.num_layers_key);
    if (!family.num_experts_keys.empty()) catalog_.num_experts = positive_count(num_experts_key());
    if (!family.num_mtp_layers_key.empty()) {
      const auto value = config_integer(checkpoint_.config, family.num_mtp_layers_key);
      config_mtp_layers_ = static_cast<int>(std::clamp<std::int64_t>(value.value_or(0), 0, kMaxCount));
    }
  }

  /// The key that config.json has; where it has none, the one that is missed.
  std::string_view num_experts_key() const {
    const auto& keys = catalog_.family->num_experts_keys;
    const auto found =
        std::find_if(keys.begin(), keys.end(), [&](std::string_view key) { return config_integer(checkpoint_.config, key).has_value(); });
    return found == keys.end() ? keys.front() : *found;
  }

  int positive_count(std::string_view key) {
    const auto value = config_integer(checkpoint_.config, key);
    if (!value || *value < 1 || *value > kMaxCount) {
      problem("has no usable '" + std::string(key) + "', a number from 1 to 1000000, which the " + std::string(catalog_.family->name) +
              " family needs.");
      return 0;
    }
    return static_cast<int>(*value);
  }

  void add_tensor(std::uint32_t index) {
    const CheckpointTensor& tensor = checkpoint_.tensors[index];
    if (scales_.is_scale.contains(index)) return;
    if (catalog_.family != nullptr) {
      for (const std::string_view ending : catalog_.family->derived) {
        if (tensor.name.ends_with(ending)) {
          catalog_.dropped.emplace_back(tensor.name, "derived from the config");
          return;
        }
      }
    }
    const NamePattern name = split_name(tensor.name);
    if (name.layer >= 0) {
      int& count = catalog_.num_layers[layer_prefix(tensor.name)];
      count = std::max(count, name.layer + 1);
    }
    if (name.expert >= 0) num_experts_seen_ = std::max(num_experts_seen_, name.expert + 1);

    if (const auto fused = fused_.find(name.pattern); fused != fused_.end()) {
      add_fused(index, *fused->second, name.layer);
      return;
    }
    TensorKey key{.layer = name.layer, .expert = name.expert, .role = name.pattern};
    CatalogEntry entry = whole_tensor(index);
    if (const auto found = rows_.find(name.pattern); found != rows_.end()) {
      const TensorRow& row = *found->second;
      key.role = row.role;
      entry.place = row.place;
      entry.vocabulary_rows = row.vocabulary_rows;
      entry.keep_f32 = row.keep_f32;
      entry.optional = row.need == Need::kNever;
    } else {
      entry.place = place_of(tensor.name, name.layer);
      entry.vocabulary_rows = name.layer < 0 && counts_tokens(tensor.name, tensor.shape, vocab_size_);
      entry.optional = catalog_.family != nullptr;
    }
    add_entry(std::move(key), std::move(entry), tensor.name);
  }

  CatalogEntry whole_tensor(std::uint32_t index) const {
    const CheckpointTensor& tensor = checkpoint_.tensors[index];
    CatalogEntry entry;
    entry.dtype = tensor.dtype;
    entry.shape = tensor.shape;
    entry.tensor = index;
    entry.file = tensor.file;
    entry.begin = tensor.begin;
    if (const auto scale = scales_.of_weight.find(index); scale != scales_.of_weight.end()) {
      const CheckpointTensor& own = checkpoint_.tensors[scale->second];
      entry.scale = ScaleLocation{own.dtype, own.shape, scale->second, own.file, own.begin, 0};
    }
    return entry;
  }

  void add_entry(TensorKey key, CatalogEntry entry, const std::string& tensor) {
    const auto [position, inserted] = catalog_.entries.try_emplace(std::move(key), std::move(entry));
    if (!inserted) {
      problem("holds the same matrix as tensor '" + checkpoint_.tensors[position->second.tensor].name +
                  "': the checkpoint mixes the per-expert and the fused layout. Keep one of the two.",
              tensor);
    }
  }

  void add_fused(std::uint32_t index, const FusedRow& row, int layer) {
    const CheckpointTensor& tensor = checkpoint_.tensors[index];
    const std::uint64_t num_parts = row.roles.size();
    const std::size_t rank = row.per_expert ? 3 : 2;
    if (row.per_expert) catalog_.layout = Layout::kFused;
    if (tensor.shape.size() != rank || tensor.shape[0] == 0 || tensor.shape[rank - 2] % num_parts != 0) {
      problem("has shape " + to_string(tensor.shape) + ", but the fused layout needs [" + (row.per_expert ? "experts, " : "") +
                  (num_parts == 1 ? std::string("rows") : std::to_string(num_parts) + " x rows") + ", columns].",
              tensor.name);
      return;
    }
    int num_experts = 1;
    if (row.per_expert) {
      if (tensor.shape[0] > kMaxCount) {
        problem("has " + std::to_string(tensor.shape[0]) + " experts, but at most 1000000 are supported.", tensor.name);
        return;
      }
      num_experts = static_cast<int>(tensor.shape[0]);
      num_experts_seen_ = std::max(num_experts_seen_, num_experts);
      if (catalog_.num_experts > 0 && num_experts != catalog_.num_experts) {
        problem("holds " + std::to_string(num_experts) + " experts, but config.json says " + std::to_string(catalog_.num_experts) + ".",
                tensor.name);
      }
    }
    const Shape shape{tensor.shape[rank - 2] / num_parts, tensor.shape[rank - 1]};
    const std::uint64_t part_bytes = num_elements(shape) * size_bytes(tensor.dtype);
    for (int expert = 0; expert < num_experts; ++expert) {
      for (std::uint64_t part = 0; part < num_parts; ++part) {
        CatalogEntry entry = whole_tensor(index);
        entry.shape = shape;
        entry.begin = tensor.begin + (static_cast<std::uint64_t>(expert) * num_parts + part) * part_bytes;
        if (entry.scale) {
          // Parts need not begin at a block: they share the scales of the matrix that they are rows of.
          entry.scale->shape = {entry.scale->shape[rank - 2], entry.scale->shape[rank - 1]};
          entry.scale->begin += static_cast<std::uint64_t>(expert) * num_elements(entry.scale->shape) * size_bytes(entry.scale->dtype);
          entry.scale->first_row = part * shape[0];
        }
        add_entry({.layer = layer, .expert = row.per_expert ? expert : -1, .role = std::string(row.roles[part])}, std::move(entry),
                  tensor.name);
      }
    }
  }

  void check_counts() {
    const std::string& directory = checkpoint_.directory;
    const auto found = catalog_.num_layers.find("model");
    const int seen = found == catalog_.num_layers.end() ? 0 : found->second;
    if (config_layers_ > 0 && seen == config_layers_ + config_mtp_layers_) {
      catalog_.num_mtp_layers = config_mtp_layers_;
      found->second = config_layers_;
    } else if (config_layers_ > 0 && seen != config_layers_) {
      std::string says = "says '" + std::string(catalog_.family->num_layers_key) + "' is " + std::to_string(config_layers_);
      if (config_mtp_layers_ > 0) {
        says += " and '" + std::string(catalog_.family->num_mtp_layers_key) + "' " + std::to_string(config_mtp_layers_);
      }
      problem(says + ", but the tensors have " + std::to_string(seen) + " layers.");
    }
    const int experts = catalog_.num_experts;
    if (experts > 0 && num_experts_seen_ != experts && catalog_.layout == Layout::kPerExpert) {
      problem("says '" + std::string(num_experts_key()) + "' is " + std::to_string(experts) + ", but the tensors have " +
              std::to_string(num_experts_seen_) + " experts.");
    }
    problems_.attempt([&] {
      try {
        catalog_.sparse_layers = sparse_layers(*catalog_.family, text_config(checkpoint_.config), config_layers_ + catalog_.num_mtp_layers);
      } catch (const Error& error) {
        throw Error(error.code(), error.problems().front().message, directory + "/config.json");
      }
    });
    counts_agree_ = problems_.empty();
  }

  bool stands_in(const TensorRow& row, int layer) const {
    switch (row.layers) {
      case Layers::kAll:
        return true;
      case Layers::kDense:
        return !catalog_.sparse_layers[static_cast<std::size_t>(layer)];
      case Layers::kSparse:
        return catalog_.sparse_layers[static_cast<std::size_t>(layer)];
      case Layers::kMtp:
        return layer >= config_layers_;
    }
    return true;
  }

  bool is_needed(const TensorRow& row) const {
    const Json& config = text_config(checkpoint_.config);
    const Json* value = row.key.empty() ? nullptr : field(config, row.key);
    const bool is_null = value == nullptr && config.is_object() && config.contains(std::string(row.key));
    switch (row.need) {
      case Need::kAlways:
        return true;
      case Need::kNever:
        return row.role == "lm_head" && !tie_word_embeddings();
      case Need::kUnlessFalse:
        return value == nullptr || !value->is_boolean() || value->get<bool>();
      case Need::kIfPositive:
        return value != nullptr && value->is_number() && value->get<double>() > 0;
      case Need::kIfNull:
        return is_null;
      case Need::kUnlessNull:
        return !is_null;
    }
    return true;
  }

  /// Every tensor that the table and config.json ask for is there, and none in a layer that has no place for it.
  void check_tensors() {
    // With wrong counts every layer beyond would be listed: the counts say it better.
    if (!counts_agree_) return;
    const Family& family = *catalog_.family;
    std::size_t num_problems = 0;
    const auto add = [&](std::string message, const TensorKey& key) {
      if (++num_problems <= kMaxListedProblems) problem(std::move(message), tensor_name(&family, key));
    };
    const int num_layers = config_layers_ + catalog_.num_mtp_layers;
    for (const TensorRow& row : family.tensors) {
      if (!is_needed(row)) continue;
      const bool per_layer = row.name.find(kLayerHolder) != std::string_view::npos;
      const bool per_expert = row.name.find(kExpertHolder) != std::string_view::npos;
      for (int layer = per_layer ? 0 : -1; layer < (per_layer ? num_layers : 0); ++layer) {
        if (per_layer && !stands_in(row, layer)) continue;
        for (int expert = per_expert ? 0 : -1; expert < (per_expert ? catalog_.num_experts : 0); ++expert) {
          const TensorKey key{.layer = layer, .expert = expert, .role = std::string(row.role)};
          if (catalog_.entries.contains(key)) continue;
          add(row.role == "lm_head" ? "is missing, and config.json does not say tie_word_embeddings: true. The checkpoint is incomplete."
                                    : "is missing. The checkpoint is incomplete; compare it with its source.",
              key);
          if (num_problems > kMaxCountedProblems) break;
        }
        if (num_problems > kMaxCountedProblems) break;
      }
    }
    for (const auto& [key, entry] : catalog_.entries) {
      if (key.layer < 0) continue;
      const TensorRow* row = find_row(family, key.role);
      if (row == nullptr || stands_in(*row, key.layer)) continue;
      add(row->layers == Layers::kMtp
              ? "belongs to a layer of multi-token prediction, which layer " + std::to_string(key.layer) + " is not."
              : "does not fit config.json, which says that layer " + std::to_string(key.layer) +
                    (row->layers == Layers::kSparse ? " is dense." : " has experts."),
          key);
    }
    if (num_problems > kMaxListedProblems) {
      problem("names an architecture of which " +
              (num_problems > kMaxCountedProblems ? "more than " + std::to_string(kMaxCountedProblems)
                                                  : std::to_string(num_problems - kMaxListedProblems) + " more") +
              " tensors are missing or out of place.");
    }
  }

  bool tie_word_embeddings() const {
    const Json& config = checkpoint_.config;
    const auto found = config.is_object() ? config.find("tie_word_embeddings") : config.end();
    return config.is_object() && found != config.end() && found->is_boolean() && found->get<bool>();
  }

  const Checkpoint& checkpoint_;
  std::optional<std::int64_t> vocab_size_;
  std::unordered_map<std::string_view, const TensorRow*> rows_;
  std::unordered_map<std::string_view, const FusedRow*> fused_;
  BlockScales scales_;
  int config_layers_ = 0;
  int config_mtp_layers_ = 0;
  int num_experts_seen_ = 0;
  bool counts_agree_ = true;
  Catalog catalog_;
  ProblemList problems_;
};

}  // namespace

Catalog make_catalog(const Checkpoint& checkpoint, std::string_view architecture) {
  const std::string own = checkpoint.architecture();
  return Builder(checkpoint, find_family(architecture.empty() ? std::string_view(own) : architecture)).build();
}

}  // namespace moeweld::model
