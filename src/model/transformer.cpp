#include "moeweld/model/transformer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "model/config_fields.h"
#include "model/rope_spec.h"
#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "moeweld/formats/checkpoint.h"
#include "moeweld/model/catalog.h"
#include "moeweld/model/model_config.h"

namespace moeweld::model {
namespace {

/// What readers take when config.json says nothing, and what else a family fixes.
struct FamilyRow {
  std::string_view name;
  std::uint64_t num_kv_heads;  ///< 0: as many as attention heads
  std::uint64_t head_dim;      ///< 0: hidden_size / num_attention_heads
  double rms_norm_eps;
  std::uint64_t max_positions;
  std::uint64_t experts_per_token;  ///< 0: must be stated, or a dense family
  enum class Window : std::uint8_t { kNone, kAlways, kByUse, kByUseInLayers, kByUseInEvenLayers } window;
  enum class Biases : std::uint8_t { kNone, kQkv, kStatedQkv, kStated } biases;
  enum class Weights : std::uint8_t { kNormalised, kStated } weights;
};
using Window = FamilyRow::Window;
using Biases = FamilyRow::Biases;
using Weights = FamilyRow::Weights;

constexpr std::array<FamilyRow, 11> kFamilies{{
    {"llama", 0, 0, 1e-6, 2048, 0, Window::kNone, Biases::kStated, Weights::kNormalised},
    {"mistral", 8, 0, 1e-6, 131072, 0, Window::kAlways, Biases::kNone, Weights::kNormalised},
    {"qwen2", 32, 0, 1e-6, 32768, 0, Window::kByUseInLayers, Biases::kQkv, Weights::kNormalised},
    {"qwen3", 32, 128, 1e-6, 32768, 0, Window::kByUseInLayers, Biases::kStated, Weights::kNormalised},
    {"granite", 0, 0, 1e-6, 2048, 0, Window::kNone, Biases::kStated, Weights::kNormalised},
    {"mixtral", 8, 0, 1e-5, 131072, 2, Window::kAlways, Biases::kNone, Weights::kNormalised},
    {"qwen2_moe", 16, 0, 1e-6, 32768, 4, Window::kByUseInEvenLayers, Biases::kStatedQkv, Weights::kStated},
    {"qwen3_moe", 4, 0, 1e-6, 32768, 8, Window::kByUse, Biases::kStated, Weights::kStated},
    {"granitemoe", 0, 0, 1e-6, 2048, 2, Window::kNone, Biases::kStated, Weights::kNormalised},
    {"granitemoeshared", 0, 0, 1e-6, 2048, 2, Window::kNone, Biases::kStated, Weights::kNormalised},
    {"deepseek", 0, 0, 1e-6, 2048, 0, Window::kNone, Biases::kStated, Weights::kStated},
}};

const FamilyRow* find_row_of(std::string_view family) {
  const auto found = std::find_if(kFamilies.begin(), kFamilies.end(), [&](const FamilyRow& row) { return row.name == family; });
  return found == kFamilies.end() ? nullptr : &*found;
}

constexpr std::uint64_t kMostAnything = std::uint64_t{1} << 32;
constexpr std::uint64_t kDefaultWindow = 4096;

class Reader {
 public:
  Reader(const formats::Checkpoint& checkpoint, const Catalog& catalog, const FamilyRow& row)
      : checkpoint_(checkpoint), catalog_(catalog), config_(checkpoint.config), row_(row) {}

  Transformer read() {
    result_.family = row_.name;
    for (const formats::CheckpointFile& file : checkpoint_.files) result_.files.push_back({file.path, file.identity});
    read_numbers();
    problems_.throw_if_any();
    read_outer_weights();
    const auto found = catalog_.num_layers.find("model");
    const int num_layers = found == catalog_.num_layers.end() ? 0 : found->second;
    for (int layer = 0; layer < num_layers; ++layer) read_layer(layer, num_layers);
    problems_.throw_if_any();
    return std::move(result_);
  }

 private:
  void problem(ErrorCode code, std::string message, std::string tensor = {}) {
    problems_.add({.code = code,
                   .message = std::move(message),
                   .path = tensor.empty() ? checkpoint_.directory + "/config.json" : checkpoint_.directory,
                   .tensor = std::move(tensor)});
  }

  std::uint64_t count(std::string_view key, std::uint64_t fallback) {
    const Json* value = field(config_, key);
    if (value == nullptr) {
      if (fallback == 0) problem(ErrorCode::kInvalidInput, "has no '" + std::string(key) + "', which a forward pass needs.");
      return fallback;
    }
    if (!value->is_number_integer() || value->get<std::int64_t>() < 1 || value->get<std::uint64_t>() > kMostAnything) {
      problem(ErrorCode::kInvalidInput, "'" + std::string(key) + "' is " + value->dump() + ", but must be a whole number above 0.");
      return 1;
    }
    return value->get<std::uint64_t>();
  }

  double number(std::string_view key, double fallback) {
    const Json* value = field(config_, key);
    if (value == nullptr) return fallback;
    if (!value->is_number() || !std::isfinite(value->get<double>())) {
      problem(ErrorCode::kInvalidInput, "'" + std::string(key) + "' is " + value->dump() + ", but must be a number.");
      return fallback;
    }
    return value->get<double>();
  }

  bool flag(std::string_view key, bool fallback) {
    const Json* value = field(config_, key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) {
      problem(ErrorCode::kInvalidInput, "'" + std::string(key) + "' is " + value->dump() + ", but must be true or false.");
      return fallback;
    }
    return value->get<bool>();
  }

  void read_numbers() {
    result_.hidden_size = count("hidden_size", 0);
    result_.num_heads = count("num_attention_heads", 0);
    problems_.throw_if_any();
    const bool kv_is_null = config_.contains("num_key_value_heads") && config_.at("num_key_value_heads").is_null();
    result_.num_kv_heads = count("num_key_value_heads", kv_is_null || row_.num_kv_heads == 0 ? result_.num_heads : row_.num_kv_heads);
    const std::uint64_t head_dim =
        row_.head_dim != 0 && !config_.contains("head_dim") ? row_.head_dim : result_.hidden_size / result_.num_heads;
    result_.head_dim = count("head_dim", head_dim);
    if (result_.num_heads % result_.num_kv_heads != 0) {
      problem(ErrorCode::kInvalidInput, "'num_attention_heads' is " + std::to_string(result_.num_heads) +
                                            ", which is no multiple of 'num_key_value_heads', " + std::to_string(result_.num_kv_heads) +
                                            ".");
    }
    result_.rms_norm_eps = number("rms_norm_eps", row_.rms_norm_eps);
    result_.rope = read_rope_spec(config_, result_.head_dim, count("max_position_embeddings", row_.max_positions), problems_,
                                  checkpoint_.directory + "/config.json");
    read_activation();
    const bool is_granite = row_.name.starts_with("granite");
    result_.attention_multiplier = 1.0 / std::sqrt(static_cast<double>(result_.head_dim));
    if (is_granite) {
      result_.embedding_multiplier = number("embedding_multiplier", 1.0);
      result_.attention_multiplier = number("attention_multiplier", 1.0);
      result_.residual_multiplier = number("residual_multiplier", 1.0);
      result_.logits_divisor = number("logits_scaling", 1.0);
    }
    if (catalog_.num_experts > 0) {
      result_.experts_per_token = count("num_experts_per_tok", row_.experts_per_token);
      if (result_.experts_per_token > static_cast<std::uint64_t>(catalog_.num_experts)) {
        problem(ErrorCode::kInvalidInput, "'num_experts_per_tok' is " + std::to_string(result_.experts_per_token) +
                                              ", but there are only " + std::to_string(catalog_.num_experts) + " experts.");
      }
      result_.normalise_expert_weights = row_.weights == Weights::kNormalised || flag("norm_topk_prob", false);
      const std::string scoring = text_field(config_, "scoring_func");
      if (!scoring.empty() && scoring != "softmax")
        problem(ErrorCode::kUnsupported, "'scoring_func' is '" + printable(scoring, 60) + "'; the forward pass has softmax.");
    }
  }

  void read_activation() {
    const Json* value = field(config_, "hidden_act");
    const std::string name = value == nullptr ? "silu" : value->is_string() ? value->get<std::string>() : value->dump();
    if (name == "silu" || name == "swish") {
      result_.activation = Activation::kSilu;
    } else if (name == "gelu_pytorch_tanh" || name == "gelu_new") {
      result_.activation = Activation::kGeluTanh;
    } else if (name == "relu") {
      result_.activation = Activation::kRelu;
    } else {
      problem(ErrorCode::kUnsupported,
              "'hidden_act' is '" + printable(name, 60) + "'; the forward pass has silu, gelu_pytorch_tanh and relu.");
    }
  }

  const CatalogEntry* find(std::string_view role, int layer = -1, int expert = -1) const {
    const auto found = catalog_.entries.find(TensorKey{.layer = layer, .expert = expert, .role = std::string(role)});
    return found == catalog_.entries.end() ? nullptr : &found->second;
  }

  std::string name_of(std::string_view role, int layer, int expert) const {
    return tensor_name(catalog_.family, {.layer = layer, .expert = expert, .role = std::string(role)});
  }

  /// The weight, its shape checked; rows 0: any number of rows, columns 0 likewise.
  Weight weight(std::string_view role, int layer, int expert, std::uint64_t rows, std::uint64_t columns) {
    const CatalogEntry* entry = find(role, layer, expert);
    if (entry == nullptr) {
      problem(ErrorCode::kInvalidInput, "is missing. The checkpoint is incomplete; compare it with its source.",
              name_of(role, layer, expert));
      return {};
    }
    const bool is_vector = entry->shape.size() == 1;
    Weight result;
    if (entry->shape.size() == 1 || entry->shape.size() == 2) {
      result = {.dtype = entry->dtype,
                .file = entry->file,
                .begin = entry->begin,
                .rows = is_vector ? 1 : entry->shape[0],
                .columns = entry->shape.back(),
                .scales = {}};
      if (entry->scale) {
        result.scales = {.dtype = entry->scale->dtype,
                         .file = entry->scale->file,
                         .begin = entry->scale->begin,
                         .columns = entry->scale->shape.back(),
                         .first_row = entry->scale->first_row};
      }
    }
    // Single rows of the embedding are read by another way.
    if (!is_arithmetic(entry->value_dtype()) || (entry->scale && entry->vocabulary_rows)) {
      problem(ErrorCode::kUnsupported,
              "is " + std::string(name(entry->dtype)) + "; the forward pass reads F64, F32, F16 and BF16. Convert the checkpoint first.",
              name_of(role, layer, expert));
      return {};
    }
    if (result.rows == 0 || result.columns == 0 || (rows != 0 && result.rows != rows) || (columns != 0 && result.columns != columns)) {
      const auto number_or_any = [](std::uint64_t number) { return number == 0 ? std::string("any") : std::to_string(number); };
      problem(ErrorCode::kInvalidInput,
              "has shape " + to_string(entry->shape) + ", but config.json asks for [" + (rows == 1 ? "" : number_or_any(rows) + ", ") +
                  number_or_any(columns) + "].",
              name_of(role, layer, expert));
      return {};
    }
    return result;
  }

  Weight bias(std::string_view role, int layer, std::uint64_t size, bool wanted) {
    if (wanted) return weight(role, layer, -1, 1, size);
    if (find(role, layer) != nullptr && noted_roles_.insert(std::string(role)).second)
      result_.notes.push_back("tensors '" + name_of(role, layer, -1) + "' and alike are ignored, as config.json asks for no such bias");
    return {};
  }

  void read_outer_weights() {
    result_.token_embedding = weight("token_embedding", -1, -1, 0, result_.hidden_size);
    result_.vocabulary_size = result_.token_embedding.rows;
    result_.final_norm = weight("final_norm", -1, -1, 1, result_.hidden_size);
    const bool has_head = find("lm_head") != nullptr;
    if (has_head && !flag("tie_word_embeddings", false)) {
      result_.head = weight("lm_head", -1, -1, 0, result_.hidden_size);
      if (result_.head.is_present() && result_.head.rows != result_.vocabulary_size) {
        problem(ErrorCode::kInvalidInput,
                "has " + std::to_string(result_.head.rows) + " rows, but the token embedding has " +
                    std::to_string(result_.vocabulary_size) + ".",
                "lm_head.weight");
      }
    } else {
      result_.head = result_.token_embedding;
      if (has_head) result_.notes.push_back("lm_head.weight is ignored, as config.json ties the head to the embedding");
    }
  }

  GatedFfn ffn(std::string_view prefix, int layer, int expert, bool biases) {
    const std::string start(prefix);
    GatedFfn result;
    result.gate = weight(start + "_gate_proj", layer, expert, 0, result_.hidden_size);
    const std::uint64_t width = result.gate.rows;
    result.up = weight(start + "_up_proj", layer, expert, width, result_.hidden_size);
    result.down = weight(start + "_down_proj", layer, expert, result_.hidden_size, width);
    if (prefix == "mlp") {
      result.gate_bias = bias("mlp_gate_proj_bias", layer, width, biases);
      result.up_bias = bias("mlp_up_proj_bias", layer, width, biases);
      result.down_bias = bias("mlp_down_proj_bias", layer, result_.hidden_size, biases);
    }
    return result;
  }

  void read_layer(int layer, int num_layers) {
    const std::uint64_t hidden = result_.hidden_size;
    const std::uint64_t q_rows = result_.num_heads * result_.head_dim;
    const std::uint64_t kv_rows = result_.num_kv_heads * result_.head_dim;
    TransformerLayer& to = result_.layers.emplace_back();
    to.input_norm = weight("input_norm", layer, -1, 1, hidden);
    to.post_attention_norm = weight("post_attention_norm", layer, -1, 1, hidden);
    to.q = weight("attention_q", layer, -1, q_rows, hidden);
    to.k = weight("attention_k", layer, -1, kv_rows, hidden);
    to.v = weight("attention_v", layer, -1, kv_rows, hidden);
    to.o = weight("attention_o", layer, -1, hidden, q_rows);
    const bool stated = row_.biases == Biases::kStated && flag("attention_bias", false);
    const bool qkv = stated || row_.biases == Biases::kQkv || (row_.biases == Biases::kStatedQkv && flag("qkv_bias", true));
    to.q_bias = bias("attention_q_bias", layer, q_rows, qkv);
    to.k_bias = bias("attention_k_bias", layer, kv_rows, qkv);
    to.v_bias = bias("attention_v_bias", layer, kv_rows, qkv);
    to.o_bias = bias("attention_o_bias", layer, hidden, stated);
    if (row_.name == "qwen3" || row_.name == "qwen3_moe") {
      to.q_norm = weight("attention_q_norm", layer, -1, 1, result_.head_dim);
      to.k_norm = weight("attention_k_norm", layer, -1, 1, result_.head_dim);
    }
    to.sliding_window = sliding_window(layer, num_layers);
    if (find("router", layer) == nullptr) {
      to.ffn = ffn("mlp", layer, -1, row_.name == "llama" && flag("mlp_bias", false));
      return;
    }
    const auto num_experts = static_cast<std::uint64_t>(catalog_.num_experts);
    to.router = weight("router", layer, -1, num_experts, hidden);
    for (int expert = 0; expert < catalog_.num_experts; ++expert) to.experts.push_back(ffn("expert", layer, expert, false));
    if (find("shared_gate_proj", layer) != nullptr) to.ffn = ffn("shared", layer, -1, false);
    if (row_.name == "qwen2_moe") to.shared_gate = weight("shared_expert_gate", layer, -1, 1, hidden);
  }

  std::uint64_t sliding_window(int layer, int num_layers) {
    if (row_.window == Window::kNone) return 0;
    const bool is_stated_null = config_.contains("sliding_window") && config_.at("sliding_window").is_null();
    if (is_stated_null) return 0;
    if (row_.window == Window::kAlways) {
      return row_.name == "mixtral" && !config_.contains("sliding_window") ? 0 : count("sliding_window", kDefaultWindow);
    }
    if (!flag("use_sliding_window", false)) return 0;
    const std::uint64_t window = count("sliding_window", kDefaultWindow);
    if (row_.window == Window::kByUse) return window;
    if (const Json* types = field(config_, "layer_types"); types != nullptr) {
      if (!types->is_array() || types->size() != static_cast<std::size_t>(num_layers)) {
        if (layer == 0)
          problem(ErrorCode::kInvalidInput, "'layer_types' is no list of " + std::to_string(num_layers) + " entries, one for each layer.");
        return 0;
      }
      const Json& type = (*types)[static_cast<std::size_t>(layer)];
      if (type == "sliding_attention") return window;
      if (type != "full_attention")
        problem(ErrorCode::kUnsupported,
                "'layer_types' has " + printable(type.dump(), 60) + "; the forward pass has full_attention and sliding_attention.");
      return 0;
    }
    const Json* stated = field(config_, "max_window_layers");
    const std::int64_t max_window_layers = stated != nullptr && stated->is_number_integer() ? stated->get<std::int64_t>() : 28;
    if (row_.window == Window::kByUseInLayers) return layer >= max_window_layers ? window : 0;
    return layer % 2 == 0 && layer < max_window_layers ? window : 0;
  }

  const formats::Checkpoint& checkpoint_;
  const Catalog& catalog_;
  const Json& config_;
  const FamilyRow& row_;
  ProblemList problems_;
  std::set<std::string> noted_roles_;
  Transformer result_;
};

std::uint64_t bytes_of(const GatedFfn& ffn) {
  std::uint64_t sum = 0;
  for (const Weight* weight : {&ffn.gate, &ffn.up, &ffn.down, &ffn.gate_bias, &ffn.up_bias, &ffn.down_bias}) sum += weight->size_bytes();
  return sum;
}

}  // namespace

std::uint64_t Transformer::size_bytes() const {
  std::uint64_t sum = token_embedding.size_bytes() + final_norm.size_bytes();
  if (head.begin != token_embedding.begin || head.file != token_embedding.file) sum += head.size_bytes();
  for (const TransformerLayer& layer : layers) {
    for (const Weight* weight :
         {&layer.input_norm, &layer.post_attention_norm, &layer.q, &layer.k, &layer.v, &layer.o, &layer.q_bias, &layer.k_bias,
          &layer.v_bias, &layer.o_bias, &layer.q_norm, &layer.k_norm, &layer.router, &layer.shared_gate}) {
      sum += weight->size_bytes();
    }
    sum += bytes_of(layer.ffn);
    for (const GatedFfn& expert : layer.experts) sum += bytes_of(expert);
  }
  return sum;
}

bool is_transformer_family(std::string_view family) { return find_row_of(family) != nullptr; }

Transformer read_transformer(const formats::Checkpoint& checkpoint, const Catalog& catalog) {
  const FamilyRow* row = catalog.family == nullptr ? nullptr : find_row_of(catalog.family->name);
  if (row == nullptr) {
    std::string known;
    for (const FamilyRow& family : kFamilies) known += (known.empty() ? "" : ", ") + std::string(family.name);
    throw Error(ErrorCode::kUnsupported,
                "is of architecture '" + printable(checkpoint.architecture(), 80) + "', which the forward pass does not compute; it has " +
                    known + ".",
                checkpoint.directory);
  }
  return Reader(checkpoint, catalog, *row).read();
}

}  // namespace moeweld::model
