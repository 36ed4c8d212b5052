#include "moeweld/dist/mpi_peers.h"

#include <algorithm>
#include <numeric>

#include "dist/mpi_call.h"
#include "dist/mpi_progress_board.h"
#include "dist/mpi_work_board.h"
#include "moeweld/base/checked.h"
#include "moeweld/base/trace.h"

namespace moeweld::dist {

namespace {

class MpiPeers final : public Peers {
 public:
  explicit MpiPeers(MPI_Comm parent) {
    check_mpi(MPI_Comm_dup(parent, &comm_), "MPI_Comm_dup");
    check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
    MPI_Comm host = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &host), "MPI_Comm_split_type");
    check_mpi(MPI_Comm_size(host, &ranks_on_host_), "MPI_Comm_size");
    check_mpi(MPI_Comm_free(&host), "MPI_Comm_free");
  }
  ~MpiPeers() override {
    int finalized = 0;
    if (MPI_Finalized(&finalized) == MPI_SUCCESS && finalized == 0) MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int ranks_on_host() const override { return ranks_on_host_; }

  void broadcast(std::vector<std::byte>& bytes, int root) override {
    const trace::Span span(trace::Kind::kPeers, "broadcast");
    std::uint64_t length = bytes.size();
    check_mpi(MPI_Bcast(&length, 1, MPI_UINT64_T, root, comm_), "MPI_Bcast");
    bytes.resize(length);
    broadcast_pieces(bytes, root);
  }

  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> bytes) override {
    const trace::Span span(trace::Kind::kPeers, "all-gather");
    const std::uint64_t length = bytes.size();
    std::vector<std::uint64_t> lengths(static_cast<std::size_t>(size_));
    check_mpi(MPI_Allgather(&length, 1, MPI_UINT64_T, lengths.data(), 1, MPI_UINT64_T, comm_), "MPI_Allgather");
    std::vector<std::vector<std::byte>> result(lengths.size());
    for (std::size_t i = 0; i < lengths.size(); ++i) result[i].resize(lengths[i]);
    if (std::accumulate(lengths.begin(), lengths.end(), std::uint64_t{0}) <= kMessageBytes) {
      gather_at_once(bytes, result);
      return result;
    }
    for (int root = 0; root < size_; ++root) {
      std::vector<std::byte>& part = result[static_cast<std::size_t>(root)];
      if (root == rank_) std::copy(bytes.begin(), bytes.end(), part.begin());
      broadcast_pieces(part, root);
    }
    return result;
  }

  void sum(std::span<std::uint64_t> values) override {
    const trace::Span span(trace::Kind::kPeers, "sum");
    constexpr std::size_t kPiece = kMessageBytes / sizeof(std::uint64_t);
    for (std::size_t done = 0; done < values.size(); done += kPiece) {
      const std::size_t count = std::min(kPiece, values.size() - done);
      check_mpi(MPI_Allreduce(MPI_IN_PLACE, values.data() + done, checked_cast<int>(count), MPI_UINT64_T, MPI_SUM, comm_), "MPI_Allreduce");
    }
  }

  void barrier() override {
    const trace::Span span(trace::Kind::kPeers, "barrier");
    check_mpi(MPI_Barrier(comm_), "MPI_Barrier");
  }

  std::unique_ptr<ProgressBoard> make_progress_board() override { return make_mpi_progress_board(comm_); }
  std::unique_ptr<WorkBoard> make_work_board(std::span<const std::uint64_t> first_portion, bool spares_last) override {
    return make_mpi_work_board(comm_, first_portion, spares_last);
  }

 private:
  void broadcast_pieces(std::span<std::byte> bytes, int root) {
    for (std::size_t done = 0; done < bytes.size(); done += kMessageBytes) {
      const std::size_t count = std::min(kMessageBytes, bytes.size() - done);
      check_mpi(MPI_Bcast(bytes.data() + done, checked_cast<int>(count), MPI_BYTE, root, comm_), "MPI_Bcast");
    }
  }

  void gather_at_once(std::span<const std::byte> bytes, std::vector<std::vector<std::byte>>& result) {
    std::vector<int> counts;
    std::vector<int> offsets;
    int total = 0;
    for (const std::vector<std::byte>& part : result) {
      counts.push_back(checked_cast<int>(part.size()));
      offsets.push_back(total);
      total += counts.back();
    }
    std::vector<std::byte> all(static_cast<std::size_t>(total));
    check_mpi(
        MPI_Allgatherv(bytes.data(), checked_cast<int>(bytes.size()), MPI_BYTE, all.data(), counts.data(), offsets.data(), MPI_BYTE, comm_),
        "MPI_Allgatherv");
    for (std::size_t i = 0; i < result.size(); ++i) {
      std::copy_n(all.begin() + offsets[i], counts[i], result[i].begin());
    }
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  int ranks_on_host_ = 1;
};

}  // namespace

std::unique_ptr<Peers> make_mpi_peers() { return std::make_unique<MpiPeers>(MPI_COMM_WORLD); }

std::unique_ptr<Peers> make_mpi_peers(const void* mpi_comm) { return std::make_unique<MpiPeers>(*static_cast<const MPI_Comm*>(mpi_comm)); }

}  // namespace moeweld::dist
