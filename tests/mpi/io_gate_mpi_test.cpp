#include <gtest/gtest.h>
#include <mpi.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "moeweld/dist/mpi_peers.h"
#include "moeweld/storage/io_gate.h"

namespace moeweld {
namespace {

struct Shared {
  std::atomic<int> inside;
  std::atomic<int> most;
};

/// Real processes: how many are inside at once is counted in memory that MPI shares between them.
TEST(IoGateMpi, ProcessesOfAHostPassItTogether) {
  const auto peers = dist::make_mpi_peers();
  if (peers->ranks_on_host() != peers->size()) GTEST_SKIP() << "ranks on several hosts";
  Shared* shared = nullptr;
  MPI_Win window = MPI_WIN_NULL;
  MPI_Win_allocate_shared(peers->rank() == 0 ? sizeof(Shared) : 0, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &shared, &window);
  MPI_Aint size = 0;
  int unit = 0;
  MPI_Win_shared_query(window, 0, &size, &unit, &shared);
  if (peers->rank() == 0) {
    shared->inside = 0;
    shared->most = 0;
  }
  const IoGates gates = make_host_gates(*peers, "host", 2, 2);
  peers->barrier();
  for (int turn = 0; turn < 20; ++turn) {
    const IoTurn holds(gates.reads.get());
    const int now = ++shared->inside;
    for (int seen = shared->most; now > seen && !shared->most.compare_exchange_weak(seen, now);) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    --shared->inside;
  }
  peers->barrier();
  EXPECT_EQ(shared->most, std::min(2, peers->size()));
  peers->barrier();
  MPI_Win_free(&window);
}

}  // namespace
}  // namespace moeweld
