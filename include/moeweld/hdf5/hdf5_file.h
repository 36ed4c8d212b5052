#pragma once
/// Checkpoints as one HDF5 file: docs/hdf5.md says how it looks.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "moeweld/base/peers.h"
#include "moeweld/exec/output_writer.h"
#include "moeweld/formats/safetensors.h"
#include "moeweld/storage/storage.h"

namespace moeweld::hdf5 {

constexpr const char* kFormatName = "moeweld.hdf5/1";

/// What the file says of its origin, beside what the plan holds: attributes of the root group.
struct Provenance {
  std::string version;
};

/// Writes the one file of a plan that was made for HDF5. Rank 0 makes it with all its datasets; then every rank opens it, through MPI-IO
/// where `parallel` says that MPI runs (over MPI_COMM_WORLD, or the communicator that `mpi_comm` points to), and writes its pieces as
/// hyperslabs. Not collective while it writes. open() throws Error(kInternal) if the library places the data elsewhere than the plan says.
std::unique_ptr<exec::OutputWriter> make_hdf5_writer(Peers& peers, Storage& storage, Provenance provenance, bool parallel,
                                                     const void* mpi_comm = nullptr);

/// Where the tensors of an HDF5 checkpoint are: every dataset of the root group is one, and its data must be one run of bytes of the file.
/// For formats::set_hdf5_reader. Throws Error: kInvalidInput where the file is damaged or is no such checkpoint, kUnsupported (with advice)
/// for chunked, compressed, external or big-endian data, groups and links.
std::vector<formats::SafetensorsTensor> read_hdf5_header(const std::string& path, std::uint64_t file_size_bytes);

}  // namespace moeweld::hdf5
