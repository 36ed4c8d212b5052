#pragma once
/// What the ranks of a job, and those of one node, have to agree on before they work: threads, how many read and write at once, vector
/// instructions.

#include <memory>
#include <string>

#include "app/core_share.h"
#include "app/options.h"
#include "moeweld/base/peers.h"
#include "moeweld/storage/storage.h"

namespace moeweld::app {

struct NodeAgreement {
  CoreShare cores;
  int threads = 1;  ///< what --threads says, or the share
  IoLimits io;
  std::string simd_target;   ///< the best that every rank has, or what --simd says; chosen on every rank
  std::string blas_core;     ///< of this rank
  std::string warning;       ///< more threads asked for than the rank has cores; else empty
  std::string text() const;  ///< a line for people
};

/// Collective. Throws the same Error on every rank where one has no such SIMD target.
NodeAgreement agree_on_node(Peers& peers, const Options& options);

/// The operating system's files, behind gates that the node's ranks share. Collective.
std::shared_ptr<Storage> make_node_storage(Peers& peers, const NodeAgreement& agreement);

}  // namespace moeweld::app
