#include "app/writers.h"

#include "moeweld/dist/mpi_peers.h"
#include "moeweld/dist/output_writers.h"
#include "moeweld/hdf5/hdf5_file.h"

namespace moeweld::app {

std::unique_ptr<exec::OutputWriter> make_output_writer(Peers& peers, Storage& storage, const plan::MergePlan& plan,
                                                       const Options& options) {
  if (!plan.output_files.empty() && plan.output_files[0].own_metadata_bytes != 0)
    return hdf5::make_hdf5_writer(peers, storage, {MOEWELD_VERSION}, dist::started_by_launcher());
  if (!dist::started_by_launcher()) return nullptr;
  switch (options.writer) {
    case WriterKind::kPosix:
      return nullptr;
    case WriterKind::kMpiIo:
      return dist::make_mpiio_writer(peers);
    case WriterKind::kGather:
      return dist::make_gather_writer(peers, storage, options.io);
  }
  return nullptr;
}

}  // namespace moeweld::app
