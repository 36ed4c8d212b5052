#include "app/node_agreement.h"

#include <fmt/format.h>

#include <algorithm>

#include "moeweld/base/archive.h"
#include "moeweld/infer/blas_core.h"
#include "moeweld/merge/simd_target.h"
#include "moeweld/storage/io_gate.h"

namespace moeweld::app {

namespace {

struct RankFacts {
  CoreFacts cores;
  std::vector<std::string> simd_targets;  // best first
};
template <class Archive>
void serialize(Archive& archive, RankFacts& value) {
  archive(value.cores, value.simd_targets);
}

/// Rank 0's best target that all ranks have. Bytes do not depend on it; that all have one makes a job's speed and its manifest plain.
std::string common_target(const std::vector<RankFacts>& ranks) {
  for (const std::string& target : ranks.front().simd_targets) {
    const auto has = [&](const RankFacts& rank) {
      return std::find(rank.simd_targets.begin(), rank.simd_targets.end(), target) != rank.simd_targets.end();
    };
    if (std::all_of(ranks.begin(), ranks.end(), has)) return target;
  }
  throw Error(ErrorCode::kPeerFailed, "the ranks' processors have no vector instructions in common; run on nodes of one architecture");
}

}  // namespace

NodeAgreement agree_on_node(Peers& peers, const Options& options) {
  agree_on(peers, [&] {
    if (!options.simd_target.empty()) merge::choose_simd_target(options.simd_target);
  });
  RankFacts mine{read_core_facts(), {merge::active_simd_target()}};
  if (options.simd_target.empty()) mine.simd_targets = merge::available_simd_targets();
  std::vector<RankFacts> all;
  for (const std::vector<std::byte>& bytes : peers.all_gather(to_archive(mine))) all.push_back(from_archive<RankFacts>(bytes));
  std::vector<CoreFacts> cores;
  for (const RankFacts& facts : all) cores.push_back(facts.cores);

  NodeAgreement agreement;
  agreement.cores = share_cores(cores, peers.rank());
  agreement.threads = options.threads > 0 ? options.threads : agreement.cores.threads;
  agreement.io = choose_io_limits(agreement.cores.cores_on_host, options.reads_per_node, options.writes_per_node);
  agreement.simd_target = common_target(all);
  if (options.simd_target.empty() && agreement.simd_target != merge::active_simd_target()) merge::choose_simd_target(agreement.simd_target);
  agreement.blas_core = infer::blas_core();
  if (agreement.threads > agreement.cores.threads)
    agreement.warning = fmt::format("--threads {} is more than this rank's share of cores, {} ({}): they will take turns",
                                    agreement.threads, agreement.cores.threads, agreement.cores.reason);
  return agreement;
}

std::string NodeAgreement::text() const {
  return fmt::format(
      "node of rank 0: {} on {}; {} per rank ({}); at most {} reads and {} writes at once; {} vector instructions, OpenBLAS for {}",
      cores.ranks_on_host == 1 ? "1 rank" : fmt::format("{} ranks", cores.ranks_on_host),
      cores.cores_on_host == 1 ? "1 core" : fmt::format("{} cores", cores.cores_on_host),
      threads == 1 ? "1 thread" : fmt::format("{} threads", threads), threads == cores.threads ? cores.reason : "--threads", io.reads,
      io.writes, simd_target, blas_core);
}

std::shared_ptr<Storage> make_node_storage(Peers& peers, const NodeAgreement& agreement) {
  const CoreFacts facts = read_core_facts();
  return make_posix_storage(make_host_gates(peers, facts.host, agreement.io.reads, agreement.io.writes));
}

}  // namespace moeweld::app
