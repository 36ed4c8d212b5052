#pragma once
/// Two ways of writing the output that need messages between ranks.

#include <memory>
#include <optional>

#include "moeweld/base/peers.h"
#include "moeweld/exec/output_writer.h"
#include "moeweld/storage/storage.h"

namespace moeweld::dist {

/// MPI-IO: each file is opened by the ranks that have a share of it, with hints for aggregators and striping, and written in collective
/// rounds in which all of them take part. Over MPI_COMM_WORLD, or the communicator that `mpi_comm` points to (as make_mpi_peers). `peers`
/// must be over the same ranks. Collective.
std::unique_ptr<exec::OutputWriter> make_mpiio_writer(Peers& peers, const void* mpi_comm = nullptr);

/// One writing rank per node, the node's lowest: the others send it their windows and open no output file. `group`: ranks with the same
/// number share a writer, instead of those of a node. Collective.
std::unique_ptr<exec::OutputWriter> make_gather_writer(Peers& peers, Storage& storage, IoMode mode, std::optional<int> group = {},
                                                       const void* mpi_comm = nullptr);

}  // namespace moeweld::dist
