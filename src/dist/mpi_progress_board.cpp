#include "dist/mpi_progress_board.h"

#include <chrono>
#include <thread>
#include <tuple>
#include <vector>

#include "dist/mpi_call.h"
#include "moeweld/base/trace.h"

namespace moeweld::dist {

namespace {

constexpr int kProgressTag = 1;
constexpr int kLastTag = 2;
constexpr int kNumFigures = static_cast<int>(std::tuple_size_v<ProgressBoard::Figures>);
constexpr std::chrono::milliseconds kPollInterval{20};
constexpr int kPollsPerCallback = 5;

/// A rank sends synchronously: the send completes when rank 0 has received. So at most one message of a rank is ever on the way, however
/// seldom rank 0 looks, and nothing piles up. Every rank ends with one message of another tag; rank 0 receives until it has all of those,
/// after which no message can be left.
class MpiProgressBoard final : public ProgressBoard {
 public:
  explicit MpiProgressBoard(MPI_Comm parent) {
    const trace::Span span(trace::Kind::kPeers, "MPI_Comm_dup");
    check_mpi(MPI_Comm_dup(parent, &comm_), "MPI_Comm_dup");
    check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    int size = 1;
    check_mpi(MPI_Comm_size(comm_, &size), "MPI_Comm_size");
    if (rank_ == 0) figures_.resize(static_cast<std::size_t>(size));
  }
  ~MpiProgressBoard() override {
    // Unfinished: the program is about to end all ranks, and to wait here would keep it from doing so.
    int finalized = 0;
    if (is_finished_ && MPI_Finalized(&finalized) == MPI_SUCCESS && finalized == 0) MPI_Comm_free(&comm_);
  }
  MpiProgressBoard(const MpiProgressBoard&) = delete;
  MpiProgressBoard& operator=(const MpiProgressBoard&) = delete;

  void publish(const Figures& figures) override {
    if (rank_ == 0) {
      figures_[0] = figures;
      return;
    }
    int done = 1;
    check_mpi(MPI_Test(&sending_, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done == 0) return;
    message_ = figures;
    check_mpi(MPI_Issend(message_.data(), kNumFigures, MPI_UINT64_T, 0, kProgressTag, comm_, &sending_), "MPI_Issend");
  }

  std::span<const Figures> collect() override {
    while (rank_ == 0 && receive()) {
    }
    return figures_;
  }

  void finish(const Figures& figures, const std::function<void()>& while_waiting) override {
    if (is_finished_) throw Error(ErrorCode::kInternal, "a progress board is finished twice");
    is_finished_ = true;
    if (rank_ == 0) {
      figures_[0] = figures;
      for (int polls = 1; num_finished_ + 1 < figures_.size(); ++polls) {
        if (receive()) continue;
        if (polls % kPollsPerCallback == 0) while_waiting();
        std::this_thread::sleep_for(kPollInterval);
      }
      return;
    }
    check_mpi(MPI_Wait(&sending_, MPI_STATUS_IGNORE), "MPI_Wait");
    check_mpi(MPI_Send(figures.data(), kNumFigures, MPI_UINT64_T, 0, kLastTag, comm_), "MPI_Send");
  }

 private:
  /// Receives one message if one is there.
  bool receive() {
    int is_there = 0;
    MPI_Status status;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &is_there, &status), "MPI_Iprobe");
    if (is_there == 0) return false;
    Figures& figures = figures_.at(static_cast<std::size_t>(status.MPI_SOURCE));
    check_mpi(MPI_Recv(figures.data(), kNumFigures, MPI_UINT64_T, status.MPI_SOURCE, status.MPI_TAG, comm_, MPI_STATUS_IGNORE), "MPI_Recv");
    if (status.MPI_TAG == kLastTag) ++num_finished_;
    return true;
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  bool is_finished_ = false;
  MPI_Request sending_ = MPI_REQUEST_NULL;
  Figures message_{};
  std::vector<Figures> figures_;  // on rank 0
  std::size_t num_finished_ = 0;  // ranks whose last message is here, without rank 0
};

}  // namespace

std::unique_ptr<ProgressBoard> make_mpi_progress_board(MPI_Comm parent) { return std::make_unique<MpiProgressBoard>(parent); }

}  // namespace moeweld::dist
