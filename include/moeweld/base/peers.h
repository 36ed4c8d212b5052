#pragma once
/// All that the pipeline knows of other processes. dist implements it with MPI; a run alone and a "cluster" of threads in one process are
/// here.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/base/progress_board.h"
#include "moeweld/base/work_board.h"

namespace moeweld {

/// One rank's view of the world. All methods but rank() and size() are collective: every rank calls them in the same order, from one
/// thread. A failure of the transport throws Error(kPeerFailed).
class Peers {
 public:
  virtual ~Peers() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// After the call `bytes` holds what it held on `root`. Any length, above 2^31 too.
  virtual void broadcast(std::vector<std::byte>& bytes, int root) = 0;

  /// Every rank's bytes, in rank order. Lengths may differ and may be 0.
  virtual std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> bytes) = 0;

  /// Element-wise sum over ranks of equally long arrays, in place. Integers: the order does not matter.
  virtual void sum(std::span<std::uint64_t> values) = 0;

  virtual void barrier() = 0;

  /// Whether ranks of the same host are on this host: ranks per host, this rank among them. Never collective after construction.
  virtual int ranks_on_host() const = 0;

  /// A board of this world; several may exist. Collective.
  virtual std::unique_ptr<ProgressBoard> make_progress_board() = 0;

  /// A board over WorkDivision(first_portion, spares_last), which is the same on every rank and has size() + 1 entries. Collective.
  virtual std::unique_ptr<WorkBoard> make_work_board(std::span<const std::uint64_t> first_portion, bool spares_last) = 0;
};

/// Ranks agree on the outcome of a phase: if any rank has problems, every rank throws the same Error (all problems in rank order, equal
/// ones once). Collective.
void agree(Peers& peers, const ProblemList& local);

/// Runs `action` on this rank, then agrees: an Error, std::bad_alloc or std::exception on any rank becomes the same Error on all. `action`
/// must not call collectives that other ranks might skip. Collective.
void agree_on(Peers& peers, const std::function<void()>& action);

/// One rank alone.
std::unique_ptr<Peers> make_single_peer();

/// Runs `body` once per rank on `num_ranks` threads that see each other as peers. Returns when all have ended; rethrows the first exception
/// in rank order, a rank's own before those that only say that another rank has left. A rank that leaves, by an exception or early, fails
/// the collectives of the others with kPeerFailed instead of hanging them.
void run_thread_peers(int num_ranks, const std::function<void(Peers&)>& body);

}  // namespace moeweld
