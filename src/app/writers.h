#pragma once
/// --writer: who writes the output.

#include <memory>

#include "app/options.h"
#include "moeweld/base/peers.h"
#include "moeweld/exec/output_writer.h"
#include "moeweld/storage/storage.h"

namespace moeweld::app {

/// For a plan of HDF5 its writer. Else null for posix, and where there is one rank alone, without a launcher: then there is nobody to
/// gather from. Collective.
std::unique_ptr<exec::OutputWriter> make_output_writer(Peers& peers, Storage& storage, const plan::MergePlan& plan, const Options& options);

}  // namespace moeweld::app
