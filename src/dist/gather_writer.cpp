#include <algorithm>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dist/communicator.h"
#include "dist/mpi_call.h"
#include "moeweld/base/checked.h"
#include "moeweld/base/trace.h"
#include "moeweld/dist/output_writers.h"

namespace moeweld::dist {

namespace {

/// What is sent at once: two such buffers are all the memory that the writing rank needs for the others.
constexpr std::size_t kSlabBytes = 4 * kMiB;
/// When more are open, all are synced and closed before the next. A process may have 1024 as a rule.
constexpr std::size_t kMostOpenFiles = 128;

class GatherWriter final : public exec::RoundWriter {
 public:
  GatherWriter(Peers& peers, Storage& storage, IoMode mode, std::optional<int> group, MPI_Comm world)
      : RoundWriter(peers), storage_(storage), mode_(mode) {
    const trace::Span span(trace::Kind::kPeers, "MPI_Comm_split");
    check_mpi(group ? MPI_Comm_split(world, *group, peers.rank(), node_.address())
                    : MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, peers.rank(), MPI_INFO_NULL, node_.address()),
              "MPI_Comm_split");
    check_mpi(MPI_Comm_set_errhandler(node_.get(), MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    int size = 0;
    check_mpi(MPI_Comm_size(node_.get(), &size), "MPI_Comm_size");
    check_mpi(MPI_Comm_rank(node_.get(), &rank_on_node_), "MPI_Comm_rank");
    members_.resize(static_cast<std::size_t>(size));
    const int rank = peers.rank();
    check_mpi(MPI_Allgather(&rank, 1, MPI_INT, members_.data(), 1, MPI_INT, node_.get()), "MPI_Allgather");
    if (rank_on_node_ == 0 && size > 1) slabs_ = {AlignedBuffer(kSlabBytes), AlignedBuffer(kSlabBytes)};
  }

  void open(const std::string& directory, const plan::MergePlan& plan, const plan::Schedule&) override {
    directory_ = directory;
    plan_ = &plan;
  }

  void close() override {
    agree_on(peers(), [&] { sync_and_close_files(); });
  }

  void abandon() noexcept override { files_.clear(); }

 private:
  void write_round(std::span<const Part> parts, const exec::OutputPiece* mine) override {
    if (rank_on_node_ != 0) {
      if (mine != nullptr) send(mine->bytes);
      return;
    }
    // Every message is taken even if the disk fails: whoever sends waits for that.
    ProblemList problems;
    if (mine != nullptr) problems.attempt([&] { write_aligned(*mine); });
    for (std::size_t member = 1; member < members_.size(); ++member) {
      receive(static_cast<int>(member), parts[static_cast<std::size_t>(members_[member])], problems);
    }
    problems.throw_if_any();
  }

  void send(std::span<const std::byte> bytes) {
    const trace::Span span(trace::Kind::kSharedWrite, "send to the node's writer", bytes.size());
    for (std::size_t done = 0; done < bytes.size(); done += kSlabBytes) {
      const std::size_t size = std::min(kSlabBytes, bytes.size() - done);
      check_mpi(MPI_Send(bytes.data() + done, checked_cast<int>(size), MPI_BYTE, 0, 0, node_.get()), "MPI_Send");
    }
  }

  /// While one slab is written the next arrives.
  void receive(int member, const Part& part, ProblemList& problems) {
    MPI_Request request = MPI_REQUEST_NULL;
    const auto start = [&](std::uint64_t offset) {
      const std::size_t size = std::min<std::uint64_t>(kSlabBytes, part.size_bytes - offset);
      check_mpi(MPI_Irecv(slabs_[offset / kSlabBytes % 2].data(), checked_cast<int>(size), MPI_BYTE, member, 0, node_.get(), &request),
                "MPI_Irecv");
    };
    if (part.size_bytes != 0) start(0);
    for (std::uint64_t done = 0; done < part.size_bytes; done += kSlabBytes) {
      {
        const trace::Span span(trace::Kind::kPeers, "wait for a rank of the node");
        check_mpi(MPI_Wait(&request, MPI_STATUS_IGNORE), "MPI_Wait");
      }
      if (done + kSlabBytes < part.size_bytes) start(done + kSlabBytes);
      const std::span<const std::byte> bytes(slabs_[done / kSlabBytes % 2].data(),
                                             std::min<std::uint64_t>(kSlabBytes, part.size_bytes - done));
      if (problems.empty()) problems.attempt([&] { write_aligned({part.file, part.offset + done, bytes}); });
    }
  }

  void write_aligned(const exec::OutputPiece& piece) {
    const std::uint64_t aligned = round_down(piece.bytes.size(), kDirectAlignment);
    for (const std::unique_ptr<OutputFile>& place : places_of(piece.file)) {
      if (aligned != 0) place->write(piece.offset, piece.bytes.first(aligned));
      if (aligned != piece.bytes.size()) place->write(piece.offset + aligned, piece.bytes.subspan(aligned));
    }
  }

  /// The file and its copies, open.
  std::span<const std::unique_ptr<OutputFile>> places_of(std::uint32_t file) {
    if (const auto found = files_.find(file); found != files_.end()) return found->second;
    std::size_t num_open = 0;
    for (const auto& [index, places] : files_) num_open += places.size();
    if (num_open > kMostOpenFiles) sync_and_close_files();
    const plan::PlannedOutputFile& planned = plan_->output_files[file];
    std::vector<std::unique_ptr<OutputFile>> places;
    places.push_back(storage_.open_output(directory_ + "/" + planned.name, mode_));
    for (const std::string& copy : planned.copies) places.push_back(storage_.open_output(directory_ + "/" + copy, mode_));
    return files_[file] = std::move(places);
  }

  void sync_and_close_files() {
    for (const auto& [index, places] : files_) {
      for (const std::unique_ptr<OutputFile>& place : places) place->sync();
    }
    files_.clear();
  }

  Storage& storage_;
  const IoMode mode_;
  Communicator node_;
  int rank_on_node_ = 0;
  std::vector<int> members_;  // world ranks of the node, by rank on the node
  std::array<AlignedBuffer, 2> slabs_;
  std::string directory_;
  const plan::MergePlan* plan_ = nullptr;
  std::map<std::uint32_t, std::vector<std::unique_ptr<OutputFile>>> files_;  // open, each with its copies
};

}  // namespace

std::unique_ptr<exec::OutputWriter> make_gather_writer(Peers& peers, Storage& storage, IoMode mode, std::optional<int> group,
                                                       const void* mpi_comm) {
  return std::make_unique<GatherWriter>(peers, storage, mode, group,
                                        mpi_comm == nullptr ? MPI_COMM_WORLD : *static_cast<const MPI_Comm*>(mpi_comm));
}

}  // namespace moeweld::dist
