// Peers over MPI from the installed package: one rank, started without a launcher.
#include <iostream>
#include <memory>

#include "moeweld/base/peers.h"
#include "moeweld/dist/mpi_peers.h"

int main(int argc, char** argv) {
  const moeweld::dist::MpiSession session(&argc, &argv);
  const std::unique_ptr<moeweld::Peers> peers = moeweld::dist::make_mpi_peers();
  peers->barrier();
  std::cout << "rank " << peers->rank() << " of " << peers->size() << "\n";
  return peers->size() == 1 ? 0 : 1;
}
