#include "dist/mpi_work_board.h"

#include <array>
#include <vector>

#include "dist/communicator.h"
#include "dist/mpi_call.h"

namespace moeweld::dist {

namespace {

constexpr int kAskTag = 1;
constexpr int kLeaveTag = 2;
constexpr int kAnswerTag = 3;

// An answer is one number: twice the portion, and one more at the end of a stretch.
constexpr std::uint64_t kNothingLeft = ~std::uint64_t{0};

std::uint64_t encoded(const std::optional<WorkDivision::Taken>& taken) {
  return taken ? 2 * taken->portion + (taken->is_end ? 1 : 0) : kNothingLeft;
}
std::optional<WorkDivision::Taken> decoded(std::uint64_t answer) {
  if (answer == kNothingLeft) return std::nullopt;
  return WorkDivision::Taken{answer / 2, answer % 2 == 1};
}

/// Rank 0 has the division and answers, whenever it serves. A rank has one question open at most, and ends with a message of another tag
/// that rank 0 waits for, so that nothing is left on its way.
class MpiWorkBoard final : public WorkBoard {
 public:
  MpiWorkBoard(MPI_Comm parent, std::span<const std::uint64_t> first_portion, bool spares_last) : division_(first_portion, spares_last) {
    check_mpi(MPI_Comm_dup(parent, comm_.address()), "MPI_Comm_dup");
    check_mpi(MPI_Comm_set_errhandler(comm_.get(), MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(comm_.get(), &rank_), "MPI_Comm_rank");
    int size = 1;
    check_mpi(MPI_Comm_size(comm_.get(), &size), "MPI_Comm_size");
    if (rank_ == 0) {
      answers_.resize(static_cast<std::size_t>(size));
      answering_.resize(static_cast<std::size_t>(size), MPI_REQUEST_NULL);
    }
  }
  ~MpiWorkBoard() override {
    // Not ended: the program is about to end all ranks, and messages may be on their way.
    if (!has_ended_) *comm_.address() = MPI_COMM_NULL;
  }
  MpiWorkBoard(const MpiWorkBoard&) = delete;
  MpiWorkBoard& operator=(const MpiWorkBoard&) = delete;

  bool needs_serving() const override { return true; }
  bool answers() const override { return rank_ == 0; }

  void ask() override {
    is_open_ = true;
    if (rank_ == 0) return;
    check_mpi(MPI_Irecv(&answer_, 1, MPI_UINT64_T, 0, kAnswerTag, comm_.get(), &receiving_), "MPI_Irecv");
    check_mpi(MPI_Isend(&question_, 1, MPI_UINT64_T, 0, kAskTag, comm_.get(), &sending_), "MPI_Isend");
  }

  std::optional<Answer> poll() override {
    if (!is_open_ || !is_here()) return std::nullopt;
    is_open_ = false;
    if (rank_ == 0) return Answer{division_.take(0)};
    return Answer{decoded(answer_)};
  }

  void serve() override {
    while (rank_ == 0 && receive()) {
    }
  }

  void leave(bool failed) override {
    has_left_ = true;
    if (rank_ == 0 && failed) division_.close();
    last_message_ = failed ? 1 : 0;
  }

  bool has_ended() override {
    if (has_ended_ || !has_left_) return has_ended_;
    if (rank_ == 0) {
      has_ended_ = num_left_ + 1 == answers_.size() && test_all(answering_);
    } else if (is_open_) {
      if (is_here()) is_open_ = false;
    } else if (!says_so_) {
      says_so_ = true;
      check_mpi(MPI_Isend(&last_message_, 1, MPI_UINT64_T, 0, kLeaveTag, comm_.get(), &sending_), "MPI_Isend");
    } else {
      has_ended_ = test_all({&sending_, 1});
    }
    return has_ended_;
  }

 private:
  static bool test_all(std::span<MPI_Request> requests) {
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE), "MPI_Testall");
    return done != 0;
  }

  /// Whether question and answer have arrived.
  bool is_here() {
    if (rank_ == 0) return true;
    std::array<MPI_Request, 2> both{sending_, receiving_};
    const bool done = test_all(both);
    sending_ = both[0];
    receiving_ = both[1];
    return done;
  }

  /// On rank 0: receives one message if one is there, and answers.
  bool receive() {
    int is_there = 0;
    MPI_Status status;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_.get(), &is_there, &status), "MPI_Iprobe");
    if (is_there == 0) return false;
    std::uint64_t message = 0;
    check_mpi(MPI_Recv(&message, 1, MPI_UINT64_T, status.MPI_SOURCE, status.MPI_TAG, comm_.get(), MPI_STATUS_IGNORE), "MPI_Recv");
    const auto from = static_cast<std::size_t>(status.MPI_SOURCE);
    if (status.MPI_TAG == kLeaveTag) {
      ++num_left_;
      if (message != 0) division_.close();
      return true;
    }
    // The last answer has been received: else there were no other question.
    check_mpi(MPI_Wait(&answering_[from], MPI_STATUS_IGNORE), "MPI_Wait");
    answers_[from] = encoded(division_.take(from));
    check_mpi(MPI_Isend(&answers_[from], 1, MPI_UINT64_T, status.MPI_SOURCE, kAnswerTag, comm_.get(), &answering_[from]), "MPI_Isend");
    return true;
  }

  Communicator comm_;
  int rank_ = 0;
  WorkDivision division_;  // rank 0's counts
  bool is_open_ = false;   // a question
  bool has_left_ = false;
  bool says_so_ = false;
  bool has_ended_ = false;
  const std::uint64_t question_ = 0;
  std::uint64_t last_message_ = 0;
  std::uint64_t answer_ = 0;
  MPI_Request sending_ = MPI_REQUEST_NULL;
  MPI_Request receiving_ = MPI_REQUEST_NULL;
  std::vector<std::uint64_t> answers_;  // on rank 0, by rank
  std::vector<MPI_Request> answering_;
  std::size_t num_left_ = 0;  // ranks that have left, without rank 0
};

}  // namespace

std::unique_ptr<WorkBoard> make_mpi_work_board(MPI_Comm parent, std::span<const std::uint64_t> first_portion, bool spares_last) {
  return std::make_unique<MpiWorkBoard>(parent, first_portion, spares_last);
}

}  // namespace moeweld::dist
