#pragma once
/// Peers over MPI. The only module that sees mpi.h; this header does not.

#include <memory>

#include "moeweld/base/peers.h"

namespace moeweld::dist {

/// Starts MPI unless the host program has (thread level FUNNELED: all calls come from one thread), and ends it in its destructor if it
/// started it. Where the program was not started by a launcher a singleton world of one rank is what MPI gives.
class MpiSession {
 public:
  MpiSession(int* argc, char*** argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

 private:
  bool owns_ = false;
};

/// Duplicates MPI_COMM_WORLD and sets MPI_ERRORS_RETURN on the duplicate. Messages of any length are cut at 1 GiB in one place. Collective.
std::unique_ptr<Peers> make_mpi_peers();

/// The same over a communicator of the host program, given as a pointer to its MPI_Comm (so that this header needs no mpi.h). Collective
/// over it.
std::unique_ptr<Peers> make_mpi_peers(const void* mpi_comm);

/// Ends all ranks of the world with this exit code, for errors that cannot be agreed upon. Does not return.
[[noreturn]] void abort_world(int exit_code);

/// Whether the environment says that a launcher (mpirun, srun, mpiexec) started this process as one of several or as a rank at all.
bool started_by_launcher();

}  // namespace moeweld::dist
