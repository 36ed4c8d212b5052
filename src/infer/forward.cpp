#include "moeweld/infer/forward.h"

#include <cblas.h>

#include <algorithm>
#include <chrono>

#include "infer/batch_pass.h"
#include "infer/memory.h"
#include "moeweld/base/archive.h"
#include "moeweld/base/text.h"
#include "moeweld/infer/blas_core.h"

namespace moeweld::infer {
namespace {

void check_sequences(const model::Transformer& model, std::span<const TokenIds> sequences) {
  ProblemList problems;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const std::string which = "sequence " + std::to_string(i + 1);
    if (sequences[i].empty()) problems.add({ErrorCode::kInvalidInput, which + " has no tokens", {}, 0, {}});
    for (const std::int64_t id : sequences[i]) {
      if (id >= 0 && static_cast<std::uint64_t>(id) < model.vocabulary_size) continue;
      problems.add({ErrorCode::kInvalidInput,
                    which + " has token id " + std::to_string(id) + ", but the model's vocabulary has " +
                        std::to_string(model.vocabulary_size) + " ids, from 0",
                    {},
                    0,
                    {}});
      break;
    }
  }
  problems.throw_if_any();
}

std::uint64_t longest_of(const Pack& pack, std::span<const TokenIds> sequences) {
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < pack.num_sequences; ++i) length = std::max<std::uint64_t>(length, sequences[pack.first_sequence + i].size());
  return length;
}

struct RankLimits {
  std::uint64_t limit_bytes = 0;
  int threads = 1;
};
template <class Archive>
void serialize(Archive& archive, RankLimits& value) {
  archive(value.limit_bytes, value.threads);
}

/// Whole packs that run together: as many as fit every rank's limit. Ranks may have unlike limits, and must cut alike.
std::vector<Batch> make_batches(Peers& peers, const model::Transformer& model, std::span<const TokenIds> sequences,
                                const ForwardOptions& options) {
  const std::vector<std::byte> mine = to_archive(RankLimits{options.memory_limit_bytes, options.threads});
  std::vector<std::pair<MemoryPlan, std::uint64_t>> ranks;
  for (const std::vector<std::byte>& bytes : peers.all_gather(mine)) {
    const auto limits = from_archive<RankLimits>(bytes);
    ForwardOptions theirs = options;
    theirs.memory_limit_bytes = limits.limit_bytes;
    theirs.threads = limits.threads;
    ranks.emplace_back(plan_memory(model, theirs, peers.size(), sequences.size()), limits.limit_bytes);
  }
  const auto fits = [&](std::uint64_t num_tokens, std::uint64_t longest) {
    return std::all_of(ranks.begin(), ranks.end(),
                       [&](const auto& rank) { return rank.first.batch_bytes(num_tokens, longest) <= rank.second; });
  };
  const std::vector<Pack> packs = make_packs(sequences);
  std::vector<Batch> batches;
  for (std::size_t first = 0; first < packs.size();) {
    std::uint64_t num_tokens = 0;
    std::uint64_t longest = 0;
    std::size_t count = 0;
    while (first + count < packs.size()) {
      const Pack& pack = packs[first + count];
      const std::uint64_t length = std::max(longest, longest_of(pack, sequences));
      if (!fits(num_tokens + pack.num_tokens, length)) break;
      num_tokens += pack.num_tokens;
      longest = length;
      ++count;
    }
    if (count == 0) {
      const Pack& pack = packs[first];
      const std::uint64_t length = longest_of(pack, sequences);
      std::uint64_t needed = 0;
      for (const auto& rank : ranks) needed = std::max(needed, rank.first.batch_bytes(pack.num_tokens, length));
      throw Error(ErrorCode::kUsage, "--memory-limit is too small for a forward pass over " + std::to_string(pack.num_tokens) +
                                         " tokens: it needs about " + format_memory(needed) + " for each rank");
    }
    batches.push_back(make_batch(sequences, std::span(packs).subspan(first, count)));
    first += count;
  }
  return batches;
}

}  // namespace

std::uint64_t minimum_forward_bytes(const model::Transformer& model, std::span<const TokenIds> sequences, const ForwardOptions& options,
                                    int num_ranks) {
  const MemoryPlan memory = plan_memory(model, options, num_ranks, sequences.size());
  std::uint64_t needed = 0;
  for (const Pack& pack : make_packs(sequences))
    needed = std::max(needed, memory.batch_bytes(pack.num_tokens, longest_of(pack, sequences)));
  return needed;
}

ForwardReport forward(Peers& peers, Storage& storage, const model::Transformer& model, std::span<const TokenIds> sequences,
                      const ForwardOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  openblas_set_num_threads(1);
  ForwardReport report;
  report.blas_core = blas_core();
  agree_on_blas_core(peers, report.blas_core);
  std::vector<Batch> batches;
  check_sequences(model, sequences);
  batches = make_batches(peers, model, sequences, options);
  for (const TokenIds& sequence : sequences) report.num_tokens += sequence.size();
  if (options.want_logits) report.sequences.resize(sequences.size());

  const MemoryPlan memory = plan_memory(model, options, peers.size(), sequences.size());
  ModelFiles small_files(storage, model.files, options.io);
  ModelFiles stream_files(storage, model.files, options.io);
  const SmallWeights vectors = read_small_weights(peers, small_files, model);
  std::uint64_t read_bytes = peers.rank() == 0 ? vectors.read_bytes : 0;
  {
    WeightStream stream(stream_files, memory.buffer_bytes, memory.num_buffers);
    const PassContext context{peers, model, vectors, sequences, options, small_files};
    for (const Batch& batch : batches) {
      BatchPass pass(context, batch, stream, report.num_passes * model.layers.size(), batches.size() * model.layers.size());
      pass.run(report);
      read_bytes += pass.extra_read_bytes();
      ++report.num_passes;
    }
    read_bytes += stream.read_bytes();
  }
  peers.sum(std::span(&read_bytes, 1));
  report.read_bytes = read_bytes;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace moeweld::infer
