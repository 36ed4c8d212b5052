#include "plan/router_slots.h"

#include <algorithm>
#include <memory>

#include "moeweld/base/text.h"
#include "moeweld/model/transformer.h"
#include "moeweld/tokenizer/tokenizer.h"

namespace moeweld::plan {

namespace {

using config::GateMode;
using model::CatalogEntry;
using TokenIds = std::vector<std::vector<std::int64_t>>;

class SlotMaker {
 public:
  SlotMaker(const RouterRows& rows, Storage& storage, ProblemList& problems) : rows_(rows), storage_(storage), problems_(problems) {}

  Slot make() {
    const CatalogEntry& embedding = rows_.base.catalog.entries.at({-1, -1, "token_embedding"});
    hidden_ = embedding.shape.at(1);
    vocabulary_ = embedding.shape.at(0);
    switch (rows_.config.gate_mode) {
      case GateMode::kOrthogonal:
        make_orthogonal();
        break;
      case GateMode::kHidden:
        make_hidden("hidden", Slot::State::kLastToken);
        break;
      case GateMode::kHiddenAverage:
        make_hidden("hidden_avg", Slot::State::kMeanOfTokens);
        break;
      case GateMode::kRouterInput:
        make_hidden("router_input", Slot::State::kRouterInput);
        break;
      default:
        make_cheap_embed(embedding);
    }
    return std::move(slot_);
  }

 private:
  std::size_t num_shared() const { return rows_.has_shared_gate ? rows_.config.shared_experts.size() : 0; }

  void set_shape(std::uint64_t num_routed) {
    slot_.shape = {(num_routed + (num_shared() == 0 ? 0 : 1)) * std::max<std::size_t>(1, slot_.layers.size()), hidden_};
  }
  void list_layers() {
    for (std::size_t layer = 0; layer < rows_.sparse_layers.size(); ++layer) {
      if (rows_.sparse_layers[layer]) slot_.layers.push_back(static_cast<std::uint32_t>(layer));
    }
  }

  void make_cheap_embed(const CatalogEntry& embedding) {
    slot_.kind = Slot::Kind::kCheapEmbedRouter;
    slot_.name = "router rows (cheap_embed)";
    slot_.embedding = {.dtype = embedding.dtype,
                       .file = rows_.base.first_file + embedding.file,
                       .begin = embedding.begin,
                       .num_elements = num_elements(embedding.shape),
                       .children = {}};
    slot_.embedding_shape = embedding.shape;
    add_prompts();
    set_shape(rows_.config.experts.size());
  }

  void make_hidden(const std::string& name, Slot::State state) {
    slot_.kind = Slot::Kind::kHiddenRouter;
    slot_.state = state;
    slot_.name = "router rows (" + name + ")";
    list_layers();
    problems_.attempt([&] { slot_.base = model::read_transformer(*rows_.base.checkpoint, rows_.base.catalog); });
    add_prompts();
    set_shape(rows_.config.experts.size());
  }

  void make_orthogonal() {
    slot_.kind = Slot::Kind::kOrthogonalRouter;
    slot_.name = "router rows (orthogonal)";
    list_layers();
    set_shape(rows_.num_rows);
    if (slot_.rows_per_layer() <= hidden_) return;
    problem(ErrorCode::kInvalidConfig,
            "gate_mode orthogonal needs " + std::to_string(slot_.rows_per_layer()) +
                " orthogonal rows, one for each expert, but they have " + std::to_string(hidden_) +
                " numbers each: there are no more than that",
            rows_.config.line_of("gate_mode"));
  }

  void problem(ErrorCode code, std::string message, int line) {
    problems_.add(Problem{code, std::move(message), rows_.file.path, line, {}});
  }

  void add_prompts() {
    for (const config::Expert& expert : rows_.config.experts) add_prompts_of(expert);
    if (num_shared() == 0) return;
    slot_.num_shared = static_cast<std::uint32_t>(num_shared());
    for (const config::Expert& expert : rows_.config.shared_experts) add_prompts_of(expert);
  }

  void add_prompts_of(const config::Expert& expert) {
    slot_.positive_ids.push_back(ids_of(expert, "positive", expert.positive_token_ids, expert.positive_prompts));
    slot_.negative_ids.push_back(ids_of(expert, "negative", expert.negative_token_ids, expert.negative_prompts));
  }

  bool has_tokenizer() const { return !is_loaded_ || tokenizer_ != nullptr; }

  /// As mergekit-moe: the beginning-of-sequence token if there is one, then the text. The base's tokenizer is loaded when first needed.
  std::vector<std::int64_t> encode(const std::string& prompt, const config::Expert& expert, const std::string& which) {
    if (!is_loaded_) {
      is_loaded_ = true;
      try {
        tokenizer_ = tokenizer::load_tokenizer(storage_, rows_.base.checkpoint->directory);
      } catch (const Error& error) {
        for (Problem found : error.problems()) {
          found.message += " The base's tokenizer turns prompts into tokens; positive_token_ids may replace them.";
          problems_.add(std::move(found));
        }
      }
    }
    if (tokenizer_ == nullptr) return {};
    try {
      return tokenizer_->encode_with_bos(prompt);
    } catch (const Error& error) {
      for (const Problem& found : error.problems())
        problem(found.code, "a " + which + " prompt, '" + printable(prompt, 40) + "': " + found.message, expert.line);
      return {0};  // reported already
    }
  }

  /// Ids as given win over prompts.
  TokenIds ids_of(const config::Expert& expert, const std::string& which, const TokenIds& given, const std::vector<std::string>& prompts) {
    TokenIds ids = given;
    if (ids.empty()) {
      for (const std::string& prompt : prompts) ids.push_back(encode(prompt, expert, which));
      if (!has_tokenizer()) return {};
    }
    for (const auto& prompt : ids) {
      if (prompt.empty()) problem(ErrorCode::kInvalidConfig, "a " + which + " prompt of this expert has no token", expert.line);
      for (const std::int64_t id : prompt) {
        if (id >= 0 && static_cast<std::uint64_t>(id) < vocabulary_) continue;
        problem(ErrorCode::kInvalidConfig,
                "token id " + std::to_string(id) + " is beyond the base's vocabulary of " + std::to_string(vocabulary_), expert.line);
      }
    }
    return ids;
  }

  const RouterRows& rows_;
  Storage& storage_;
  ProblemList& problems_;
  std::shared_ptr<const tokenizer::Tokenizer> tokenizer_;
  bool is_loaded_ = false;
  std::uint64_t hidden_ = 0;
  std::uint64_t vocabulary_ = 0;
  Slot slot_;
};

}  // namespace

bool fills_slot(config::GateMode mode) { return mode != GateMode::kRandom && mode != GateMode::kUniformRandom; }

void take_slot_rows(const RouterRows& rows, Storage& storage, int layer, std::uint64_t first_row, Operation& operation,
                    ProblemList& problems, MergePlan& plan) {
  if (plan.slots.empty()) plan.slots.push_back(SlotMaker(rows, storage, problems).make());
  const Slot& slot = plan.slots.front();
  const auto found = std::find(slot.layers.begin(), slot.layers.end(), static_cast<std::uint32_t>(layer));
  const auto group = slot.layers.empty() ? 0 : static_cast<std::uint64_t>(found - slot.layers.begin());
  operation.kind = Operation::Kind::kSlot;
  operation.slot = 0;
  operation.fill.first_index = (group * slot.rows_per_layer() + first_row) * slot.shape.at(1);
}

}  // namespace moeweld::plan
