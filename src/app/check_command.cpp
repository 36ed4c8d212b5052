#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "app/check.h"
#include "app/environment.h"
#include "app/interruption.h"
#include "app/layer_progress.h"
#include "app/run.h"
#include "moeweld/base/archive.h"
#include "moeweld/exec/execute.h"
#include "moeweld/model/catalog.h"
#include "moeweld/plan/planner.h"

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

std::vector<infer::TokenIds> read_sequences(Storage& storage, const Options& options) {
  const bool has_text = !options.prompts_file.empty() || !options.text_file.empty();
  if (options.token_ids_file.empty() || has_text) {
    throw Error(ErrorCode::kUnsupported, "texts come with a later version, together with tokenizers; give --token-ids FILE", options.input);
  }
  return parse_token_ids(storage.read_text(options.token_ids_file, kLargestInputBytes), options.token_ids_file);
}

}  // namespace

int run_check(Peers& peers, Storage& storage, const Options& options) {
  std::vector<std::byte> bytes;
  agree_on(peers, [&] {
    if (peers.rank() != 0) return;
    plan::ModelSource models(storage, hub_cache(options));
    const formats::Checkpoint& checkpoint = models.get(config::parse_model_reference(options.input));
    ProblemList problems;
    CheckInput input;
    problems.attempt([&] { input.model = model::read_transformer(checkpoint, model::make_catalog(checkpoint, {})); });
    problems.attempt([&] { input.sequences = read_sequences(storage, options); });
    problems.throw_if_any();
    bytes = to_archive(input);
  });
  peers.broadcast(bytes, 0);
  const auto input = from_archive<CheckInput>(bytes);

  infer::ForwardOptions forward;
  forward.memory_limit_bytes = options.memory_limit_bytes;
  forward.threads = options.threads > 0 ? options.threads : default_threads(peers.ranks_on_host());
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
    const CheckFacts facts{options.input, peak > options.baseline_resident_bytes ? peak - options.baseline_resident_bytes : 0};
    if (options.json) {
      fmt::print("{}\n", check_json(input.model, input.sequences, report, summary, facts));
    } else {
      fmt::print("{}", check_text(input.model, report, summary, facts));
    }
  }
  return summary.is_finite ? 0 : kNotFiniteExitCode;
}

}  // namespace moeweld::app
