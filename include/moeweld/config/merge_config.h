#pragma once
/// The YAML of mergekit-yaml's users, validated, as written: nothing resolved that needs a checkpoint.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "moeweld/base/dtype.h"
#include "moeweld/config/align_experts.h"
#include "moeweld/config/model_reference.h"
#include "moeweld/config/parameter.h"

namespace moeweld::config {

struct InputModel {
  ModelReference model;
  ParameterMap parameters;
  int line = 0;
};

struct InputSlice {
  ModelReference model;
  std::uint32_t first_layer = 0;  ///< layer_range: [first, end)
  std::uint32_t end_layer = 0;
  ParameterMap parameters;
  int line = 0;
};

struct OutputSlice {
  std::vector<InputSlice> sources;
  std::optional<ModelReference> base_model;
  ParameterMap parameters;
  int line = 0;
};

/// Exactly one of `models` and `slices` is filled.
struct OutputModule {
  std::string name;  ///< "default" for the whole model
  std::vector<InputModel> models;
  std::vector<OutputSlice> slices;
  ParameterMap parameters;
  int line = 0;
};

/// tokenizer_source: or tokenizer: {source, tokens, pad_to_multiple_of}.
struct TokenizerConfig {
  enum class Source : std::uint8_t { kBase, kUnion, kModel };
  Source source = Source::kUnion;
  std::optional<ModelReference> model;  ///< with kModel
  bool has_token_rules = false;         ///< tokens: is given
  std::optional<std::uint32_t> pad_to_multiple_of;
  int line = 0;
};

/// What becomes of layers of multi-token prediction (MTP), which stand after the others.
enum class MtpMode : std::uint8_t {
  kMerge,  ///< like all others
  kBase,   ///< the base's as they are; without a base the first model's
  kDrop,
};

struct MergeConfig {
  std::string merge_method;
  int merge_method_line = 0;
  std::optional<ModelReference> base_model;
  int base_model_line = 0;
  /// "models:" and "slices:" become one module named "default" with is_whole_model.
  std::vector<OutputModule> modules;
  bool is_whole_model = true;  ///< false: written as "modules:"
  ParameterMap parameters;
  std::optional<DType> dtype;
  std::optional<DType> out_dtype;
  /// out_dtype: fp8_block: what an input holds as block-scaled FP8 is written so, everything else in the type that it has.
  bool out_fp8_block = false;
  int out_dtype_line = 0;
  MtpMode mtp = MtpMode::kMerge;
  std::optional<AlignExperts> align_experts;
  std::optional<TokenizerConfig> tokenizer;
  std::optional<std::string> chat_template;  ///< "auto", a known name, or a Jinja text
  int chat_template_line = 0;

  /// Every model named, once, in the order of first mention: base first, if there is one.
  std::vector<ModelReference> referenced_models() const;
  /// Where a model is named first; 0 for one that is not.
  int line_of(const ModelReference& model) const;
};

struct Expert {
  ModelReference source_model;
  std::vector<std::uint32_t> expert;  ///< of a source that is a mixture: one index, or one for each layer; empty: the source is dense
  std::vector<std::string> positive_prompts;
  std::vector<std::string> negative_prompts;
  std::vector<std::vector<std::int64_t>> positive_token_ids;
  std::vector<std::vector<std::int64_t>> negative_token_ids;
  std::optional<double> noise_scale;
  std::optional<double> residual_scale;
  int line = 0;
};

enum class GateMode : std::uint8_t { kRandom, kUniformRandom, kOrthogonal, kCheapEmbed, kHidden, kHiddenAverage, kRouterInput };

enum class Layout : std::uint8_t { kPerExpert, kFused };

enum class RopeChoice : std::uint8_t { kKeep, kFoldTheta, kNtk };

/// Which layers get experts: all, every `every`-th from `first` on, or those listed.
struct MoeLayers {
  enum class Kind : std::uint8_t { kAll, kEvery, kList };
  Kind kind = Kind::kAll;
  std::uint32_t every = 1;
  std::uint32_t first = 0;
  std::vector<std::uint32_t> list;
};

/// docs/configuration.md, "Upcycling".
enum class RecipeKind : std::uint8_t { kNone, kSparseUpcycle, kFineGrained, kDropUpcycle, kBtx };

struct Recipe {
  RecipeKind kind = RecipeKind::kNone;
  std::uint32_t copies = 0;  ///< of the base, where experts are not listed
  std::uint32_t shards = 1;  ///< of each copy, fine_grained
  double ratio = 0.5;        ///< drop_upcycle
  bool published_scaling = false;
  /// btx: how everything but the experts' FFN is merged over the experts.
  std::string attention_method = "linear";
  ParameterMap attention_parameters;
};

/// `experts:`, the form of mergekit-moe's users.
struct MoeConfig {
  ModelReference base_model;
  std::vector<Expert> experts;  ///< empty: recipe.copies of the base
  std::vector<Expert> shared_experts;
  GateMode gate_mode = GateMode::kHidden;
  std::uint32_t experts_per_token = 2;
  std::optional<std::string> architecture;  ///< name of a family: mixtral, deepseek, qwen2_moe, qwen3_moe, granitemoeshared
  std::optional<DType> dtype;
  std::optional<Layout> layout;
  RopeChoice rope = RopeChoice::kKeep;
  MoeLayers moe_layers;
  Recipe recipe;
  /// Every expert has the same prompts, so their router rows would be the same: refused unless --allow-degenerate.
  bool identical_prompts = false;
  std::map<std::string, int> lines;  ///< of the top-level keys that are there
  int line = 0;                      ///< of the configuration

  /// Line of a top-level key, or of the configuration where the key is not there.
  int line_of(const std::string& key) const {
    const auto found = lines.find(key);
    return found == lines.end() ? line : found->second;
  }
  /// Where a model is named first; that of the base for one that is not.
  int line_of_model(const ModelReference& model) const;
  /// Experts of the output: listed or copies, each cut in shards.
  std::uint64_t num_experts() const {
    const std::uint64_t whole = experts.empty() ? recipe.copies : experts.size();
    return whole * recipe.shards;
  }
};

/// As the configuration writes it: "hidden_avg".
std::string name_of(GateMode mode);

/// Whether router rows are made from prompts.
bool needs_prompts(GateMode mode);

struct ConfigFile {
  std::string path;
  std::string text;  ///< as read, for the model card and the manifest
  std::variant<MergeConfig, MoeConfig> job;
  std::vector<std::string> notes;     ///< keys that have no effect here, said in the plan
  std::vector<std::string> warnings;  ///< under --lenient: unknown keys
};

/// What parsing needs to know of a merge method, so that config does not depend on merge's kernels: app passes merge's table.
struct ParameterInfo {
  std::string name;
  bool per_model = false;
};
struct MethodInfo {
  std::string name;
  std::vector<ParameterInfo> parameters;
  bool implemented = true;  ///< false: known to users of mergekit, brought by a later version; refused by name
};

struct ReadOptions {
  bool lenient = false;  ///< unknown keys warn instead of failing
};

/// Reads one configuration. Everything wrong is collected, each with its line, and thrown as one Error: kInvalidConfig, or kUnsupported for
/// what a later version brings (other methods, LoRA, several documents, unlike gate modes, …), always by name. Refused: duplicate keys,
/// unknown keys (with the nearest known one), wrong types, non-finite numbers, anchors that expand beyond 10^5 nodes, files over 10 MB,
/// nesting deeper than 32.
ConfigFile parse_config(const std::string& text, const std::string& path, const std::vector<MethodInfo>& methods,
                        const ReadOptions& options);

}  // namespace moeweld::config
