#pragma once
/// Progress of all ranks on rank 0, by messages between two ranks: no collective, no thread, no window.

#include <mpi.h>

#include <memory>

#include "moeweld/base/progress_board.h"

namespace moeweld::dist {

/// Collective over `parent`, which is duplicated: messages of a board meet no others.
std::unique_ptr<ProgressBoard> make_mpi_progress_board(MPI_Comm parent);

}  // namespace moeweld::dist
