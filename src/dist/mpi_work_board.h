#pragma once
/// The work board over MPI.

#include <mpi.h>

#include <cstdint>
#include <memory>
#include <span>

#include "moeweld/base/work_board.h"

namespace moeweld::dist {

/// Duplicates `parent`. Collective over it.
std::unique_ptr<WorkBoard> make_mpi_work_board(MPI_Comm parent, std::span<const std::uint64_t> first_portion, bool spares_last);

}  // namespace moeweld::dist
