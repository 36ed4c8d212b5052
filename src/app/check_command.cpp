#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "app/check.h"
#include "app/interruption.h"
#include "app/layer_progress.h"
#include "app/run.h"
#include "moeweld/base/archive.h"
#include "moeweld/base/random.h"
#include "moeweld/base/text.h"
#include "moeweld/exec/execute.h"
#include "moeweld/model/catalog.h"
#include "moeweld/model/family.h"
#include "moeweld/plan/planner.h"
#include "moeweld/tokenizer/tokenizer.h"

namespace moeweld::app {

namespace {

constexpr std::uint64_t kLargestInputBytes = std::uint64_t{1} << 30;

/// What rank 0 finds out and all ranks need.
struct CheckInput {
  model::Transformer model;
  std::vector<infer::TokenIds> sequences;
};
template <class Archive>
void serialize(Archive& archive, CheckInput& value) {
  archive(value.model, value.sequences);
}

/// Ids that are spread over the vocabulary, always the same: what a check without a text runs on. They show whether logits are finite.
constexpr std::size_t kProbeTokens = 64;
infer::TokenIds probe_ids(std::uint64_t vocabulary) {
  infer::TokenIds ids;
  for (std::size_t i = 0; i < kProbeTokens; ++i)
    ids.push_back(static_cast<std::int64_t>(static_cast<double>(uniform({0, stream_id("check")}, i)) * static_cast<double>(vocabulary)));
  return ids;
}

/// Ids as given, or texts with the line where each stands.
struct RawInput {
  std::vector<infer::TokenIds> ids;
  std::vector<std::pair<std::string, int>> texts;
  std::string path;
};

RawInput read_input(Storage& storage, const Options& options) {
  RawInput input;
  const auto read = [&](const std::string& path) {
    input.path = path;
    if (!storage.exists(path)) throw Error(ErrorCode::kInvalidInput, "there is no such file", path);
    return storage.read_text(path, kLargestInputBytes);
  };
  if (!options.token_ids_file.empty()) {
    const std::string text = read(options.token_ids_file);
    input.ids = parse_token_ids(text, input.path);
  } else if (!options.text_file.empty()) {
    input.texts.emplace_back(read(options.text_file), 0);
  } else {
    std::istringstream lines(read(options.prompts_file));
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty()) input.texts.emplace_back(line, number);
    }
    if (input.texts.empty()) throw Error(ErrorCode::kInvalidInput, "holds no prompt", input.path);
  }
  return input;
}

/// A text longer than what the model was made for, or than this, is cut into pieces.
constexpr std::size_t kLongestPiece = 4096;

std::vector<infer::TokenIds> tokenize(Storage& storage, const std::string& directory, const RawInput& input, std::uint64_t max_positions) {
  const auto tokenizer = tokenizer::load_tokenizer(storage, directory);
  const auto longest = static_cast<std::ptrdiff_t>(std::clamp<std::uint64_t>(max_positions, 2, kLongestPiece));
  std::vector<infer::TokenIds> sequences;
  ProblemList problems;
  for (const auto& [text, line] : input.texts) {
    try {
      const infer::TokenIds ids = tokenizer->encode_with_bos(text);
      if (ids.empty()) problems.add({ErrorCode::kInvalidInput, "the text has no token", input.path, line, {}});
      for (auto begin = ids.begin(); begin != ids.end();) {
        const auto end = begin + std::min(longest, ids.end() - begin);
        sequences.emplace_back(begin, end);
        begin = end;
      }
    } catch (const Error& error) {
      for (const Problem& found : error.problems()) problems.add({found.code, found.message, input.path, line, {}});
    }
  }
  problems.throw_if_any();
  return sequences;
}

bool has_input(const Options& options) {
  return !options.prompts_file.empty() || !options.text_file.empty() || !options.token_ids_file.empty();
}

}  // namespace

int run_check(Peers& peers, Storage& storage, const Options& options) {
  if (!has_input(options)) throw Error(ErrorCode::kUsage, "check needs something to read: --prompts, --text or --token-ids FILE");
  return check_model(peers, storage, options, options.input);
}

void check_before_merge(Storage& storage, const Options& options, const plan::MergePlan& plan) {
  const auto config = std::find_if(plan.auxiliary_files.begin(), plan.auxiliary_files.end(), [](const plan::AuxiliaryFile& file) {
    return file.name == "config.json" && file.action == plan::AuxiliaryFile::Action::kWrite;
  });
  if (config != plan.auxiliary_files.end()) {
    const formats::Json json = formats::parse_json(config->content, "config.json");
    const std::string architecture = json.value("architectures", std::vector<std::string>{""}).at(0);
    const model::Family* family = model::find_family(architecture);
    if (family == nullptr || !model::is_transformer_family(family->name)) {
      throw Error(ErrorCode::kUnsupported,
                  "--check: the output is a " + printable(architecture, 80) + ", which the forward pass does not compute", options.input);
    }
  }
  if (has_input(options)) read_input(storage, options);
}

int check_model(Peers& peers, Storage& storage, const Options& options, const std::string& directory) {
  std::vector<std::byte> bytes;
  agree_on(peers, [&] {
    if (peers.rank() != 0) return;
    plan::ModelSource models(storage, hub_cache(options));
    const formats::Checkpoint& checkpoint = models.get(config::parse_model_reference(directory));
    ProblemList problems;
    CheckInput input;
    problems.attempt([&] { input.model = model::read_transformer(checkpoint, model::make_catalog(checkpoint, {})); });
    if (has_input(options)) {
      problems.attempt([&] {
        RawInput raw = read_input(storage, options);
        input.sequences =
            raw.texts.empty() ? std::move(raw.ids) : tokenize(storage, checkpoint.directory, raw, input.model.rope.max_positions);
      });
    } else {
      input.sequences = {probe_ids(input.model.vocabulary_size)};
    }
    problems.throw_if_any();
    bytes = to_archive(input);
  });
  peers.broadcast(bytes, 0);
  const auto input = from_archive<CheckInput>(bytes);

  infer::ForwardOptions forward;
  forward.memory_limit_bytes = options.memory_limit_bytes;
  forward.threads = options.threads;
  forward.io = options.io;
  forward.want_logits = true;
  forward.want_last_logits = options.last_logits;
  const bool speaks = peers.rank() == 0;
  LayerProgress progress(options.log_json, options.quiet || !speaks);
  forward.on_step = [&](std::size_t step, std::size_t num_steps) {
    stop_if_interrupted();
    progress.update(step, num_steps);
  };
  const infer::ForwardReport report = infer::forward(peers, storage, input.model, input.sequences, forward);
  progress.finish();
  const CheckSummary summary = summarise(report);
  if (speaks) {
    const std::uint64_t peak = exec::peak_resident_bytes();
    const CheckFacts facts{directory, peak > options.baseline_resident_bytes ? peak - options.baseline_resident_bytes : 0,
                           !has_input(options)};
    if (options.json || options.log_json) {
      fmt::print("{}\n", check_json(input.model, input.sequences, report, summary, facts));
    } else {
      fmt::print("{}", check_text(input.model, report, summary, facts));
    }
  }
  return summary.is_finite ? 0 : kNotFiniteExitCode;
}

}  // namespace moeweld::app
