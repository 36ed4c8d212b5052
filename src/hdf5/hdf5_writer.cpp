#include <mpi.h>

#include <algorithm>
#include <optional>

#include "hdf5/boxes.h"
#include "hdf5/create_file.h"
#include "hdf5/library.h"
#include "moeweld/base/checked.h"
#include "moeweld/base/trace.h"
#include "moeweld/hdf5/hdf5_file.h"

namespace moeweld::hdf5 {

namespace {

class Hdf5Writer final : public exec::OutputWriter {
 public:
  Hdf5Writer(Peers& peers, Storage& storage, Provenance provenance, std::optional<MPI_Comm> world)
      : peers_(peers), storage_(storage), provenance_(std::move(provenance)), world_(world) {
    silence();
  }

  void open(const std::string& directory, const plan::MergePlan& plan, const plan::Schedule& schedule) override {
    if (plan.output_files.size() != 1 || plan.output_files[0].own_metadata_bytes == 0)
      throw Error(ErrorCode::kInternal, "the plan was not made for one HDF5 file");
    plan_ = &plan;
    path_ = directory + "/" + plan.output_files[0].name;
    agree_on(peers_, [&] {
      if (peers_.rank() != 0) return;
      create_file(path_, plan, 0, provenance_);
      // Space that is not there is found now, and reserved; the size stays.
      storage_.create_sized(path_, plan.output_files[0].size_bytes);
    });
    const bool has_work = !schedule.runs[static_cast<std::size_t>(peers_.rank())].empty();
    agree_on(peers_, [&] {
      const Handle access = file_access(path_);
      if (world_) {
        check(H5Pset_fapl_mpio(access.get(), *world_, MPI_INFO_NULL), "H5Pset_fapl_mpio", path_);
      } else if (!has_work) {
        return;
      }
      const trace::Span span(trace::Kind::kSharedWrite, "H5Fopen", 0, path_);
      file_ = checked(H5Fopen(path_.c_str(), H5F_ACC_RDWR, access.get()), H5Fclose, "H5Fopen", path_);
    });
  }

  void write(const exec::OutputPiece& piece) override {
    const trace::Span span(trace::Kind::kWrite, "H5Dwrite", piece.bytes.size(), path_);
    const std::uint64_t end = piece.offset + piece.bytes.size();
    auto tensor = std::partition_point(plan_->tensors.begin(), plan_->tensors.end(), [&](const plan::PlannedTensor& candidate) {
      return candidate.begin + candidate.size_bytes <= piece.offset;
    });
    for (; tensor != plan_->tensors.end() && tensor->begin < end; ++tensor) {
      const std::uint64_t from = std::max(piece.offset, tensor->begin);
      const std::uint64_t to = std::min(end, tensor->begin + tensor->size_bytes);
      if (from < to) write_part(*tensor, from - tensor->begin, piece.bytes.subspan(from - piece.offset, to - from));
    }
  }

  void finish_writing(const ProblemList&) override {}

  void close() override {
    dataset_ = {};
    current_ = nullptr;
    agree_on(peers_, [&] {
      const trace::Span span(trace::Kind::kSharedWrite, "H5Fclose", 0, path_);
      if (!file_.close()) fail("H5Fclose", path_);
    });
    agree_on(peers_, [&] {
      // What this host still holds in its page cache.
      storage_.open_output(path_, IoMode::kBuffered)->sync();
      const std::uint64_t size = storage_.identity(path_).value_or(FileIdentity{}).size_bytes;
      if (size == plan_->output_files[0].size_bytes) return;
      throw Error(
          ErrorCode::kInternal,
          "the HDF5 file has " + std::to_string(size) + " bytes, the plan says " + std::to_string(plan_->output_files[0].size_bytes),
          path_);
    });
  }

  void abandon() noexcept override {
    dataset_ = {};
    file_ = {};
  }

 private:
  void write_part(const plan::PlannedTensor& tensor, std::uint64_t offset, std::span<const std::byte> bytes) {
    const std::size_t element_size = size_bytes(tensor.dtype);
    if (offset % element_size != 0 || bytes.size() % element_size != 0)
      throw Error(ErrorCode::kInternal, "an output window ends within an element", path_, tensor.name);
    if (current_ != &tensor) {
      dataset_ = checked(H5Dopen2(file_.get(), tensor.name.c_str(), H5P_DEFAULT), H5Dclose, "H5Dopen", path_);
      type_ = stored_type(tensor.dtype);
      current_ = &tensor;
    }
    if (tensor.shape.empty()) {
      check(H5Dwrite(dataset_.get(), type_.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()), "H5Dwrite", path_);
      return;
    }
    const Handle space = checked(H5Dget_space(dataset_.get()), H5Sclose, "H5Dget_space", path_);
    const std::byte* source = bytes.data();
    for_boxes(tensor.shape, offset / element_size, bytes.size() / element_size,
              [&](std::span<const std::uint64_t> start, std::span<const std::uint64_t> extent, std::uint64_t num_elements) {
                const std::vector<hsize_t> first(start.begin(), start.end());
                const std::vector<hsize_t> count(extent.begin(), extent.end());
                check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, first.data(), nullptr, count.data(), nullptr), "H5Sselect_hyperslab",
                      path_);
                const hsize_t length = num_elements;
                const Handle memory = checked(H5Screate_simple(1, &length, nullptr), H5Sclose, "H5Screate_simple", path_);
                check(H5Dwrite(dataset_.get(), type_.get(), memory.get(), space.get(), H5P_DEFAULT, source), "H5Dwrite", path_);
                source += num_elements * element_size;
              });
  }

  Peers& peers_;
  Storage& storage_;
  const Provenance provenance_;
  const std::optional<MPI_Comm> world_;
  const plan::MergePlan* plan_ = nullptr;
  std::string path_;
  Handle file_;
  const plan::PlannedTensor* current_ = nullptr;  // of the open dataset
  Handle dataset_;
  Handle type_;
};

}  // namespace

std::unique_ptr<exec::OutputWriter> make_hdf5_writer(Peers& peers, Storage& storage, Provenance provenance, bool parallel,
                                                     const void* mpi_comm) {
  std::optional<MPI_Comm> world;
  if (parallel) world = mpi_comm == nullptr ? MPI_COMM_WORLD : *static_cast<const MPI_Comm*>(mpi_comm);
  return std::make_unique<Hdf5Writer>(peers, storage, std::move(provenance), world);
}

}  // namespace moeweld::hdf5
