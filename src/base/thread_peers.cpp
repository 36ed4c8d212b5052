#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "moeweld/base/peers.h"

namespace moeweld {
namespace {

// What another rank's failure does to this one; told apart from failures of its own.
class AnotherRankFailed : public Error {
 public:
  explicit AnotherRankFailed(int rank) : Error(ErrorCode::kPeerFailed, "rank " + std::to_string(rank) + " has left") {}
};

// What the boards of all ranks share.
struct BoardState {
  explicit BoardState(std::size_t num_ranks) : figures(num_ranks) {}
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<ProgressBoard::Figures> figures;
  std::size_t num_finished = 0;
};

// The division that all ranks' work boards share.
struct SharedDivision {
  SharedDivision(std::span<const std::uint64_t> first_portion, bool spares_last) : division(first_portion, spares_last) {}
  std::mutex mutex;
  WorkDivision division;
};

class ThreadWorkBoard final : public WorkBoard {
 public:
  ThreadWorkBoard(std::shared_ptr<SharedDivision> shared, int rank) : shared_(std::move(shared)), rank_(static_cast<std::size_t>(rank)) {}
  void ask() override {}
  std::optional<Answer> poll() override {
    const std::lock_guard lock(shared_->mutex);
    return Answer{shared_->division.take(rank_)};
  }
  void leave(bool failed) override {
    const std::lock_guard lock(shared_->mutex);
    if (failed) shared_->division.close();
  }

 private:
  const std::shared_ptr<SharedDivision> shared_;
  const std::size_t rank_;
};

// Where the ranks meet. Every collective is one exchange: each rank leaves bytes, all wait, each reads, all wait.
class MeetingPoint {
 public:
  explicit MeetingPoint(int num_ranks) : slots_(static_cast<std::size_t>(num_ranks)) {}

  int size() const { return static_cast<int>(slots_.size()); }

  // Bytes are copied into the slots, so that a rank that fails while others still read takes nothing away from them.
  template <typename Read>
  void exchange(int rank, const char* operation, std::span<const std::byte> bytes, Read&& read) {
    {
      std::unique_lock lock(mutex_);
      throw_if_left();
      slots_[static_cast<std::size_t>(rank)] = {operation, {bytes.begin(), bytes.end()}};
      wait_for_all(lock);
    }
    for (const Slot& slot : slots_) {
      if (std::string_view(slot.operation) != operation) {
        throw Error(ErrorCode::kInternal, std::string("ranks call different collectives: ") + operation + " and " + slot.operation);
      }
    }
    read(slots_);
    std::unique_lock lock(mutex_);
    wait_for_all(lock);
  }

  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    if (!left_) left_ = rank;
    changed_.notify_all();
  }

  void fail_if_left() {
    const std::lock_guard lock(mutex_);
    throw_if_left();
  }

  // The n-th board of the world, whoever asks first makes it.
  std::shared_ptr<BoardState> board(std::size_t number) {
    const std::lock_guard lock(mutex_);
    while (boards_.size() <= number) boards_.push_back(std::make_shared<BoardState>(slots_.size()));
    return boards_[number];
  }

  std::shared_ptr<SharedDivision> division(std::size_t number, std::span<const std::uint64_t> first_portion, bool spares_last) {
    const std::lock_guard lock(mutex_);
    while (divisions_.size() <= number) divisions_.push_back(std::make_shared<SharedDivision>(first_portion, spares_last));
    return divisions_[number];
  }

  struct Slot {
    const char* operation = "";
    std::vector<std::byte> bytes;
  };

 private:
  void throw_if_left() const {
    if (left_) throw AnotherRankFailed(*left_);
  }

  void wait_for_all(std::unique_lock<std::mutex>& lock) {
    const std::uint64_t generation = generation_;
    if (++num_waiting_ == size()) {
      num_waiting_ = 0;
      ++generation_;
      changed_.notify_all();
      return;
    }
    changed_.wait(lock, [&] { return generation_ != generation || left_; });
    if (generation_ == generation) throw_if_left();
  }

  std::vector<Slot> slots_;
  std::vector<std::shared_ptr<BoardState>> boards_;
  std::vector<std::shared_ptr<SharedDivision>> divisions_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int num_waiting_ = 0;
  std::uint64_t generation_ = 0;
  std::optional<int> left_;
};

class ThreadBoard final : public ProgressBoard {
 public:
  ThreadBoard(MeetingPoint& meeting_point, std::shared_ptr<BoardState> state, int rank)
      : meeting_point_(meeting_point), state_(std::move(state)), rank_(static_cast<std::size_t>(rank)) {}

  void publish(const Figures& figures) override {
    const std::lock_guard lock(state_->mutex);
    state_->figures[rank_] = figures;
  }

  std::span<const Figures> collect() override {
    if (rank_ != 0) return {};
    const std::lock_guard lock(state_->mutex);
    collected_ = state_->figures;
    return collected_;
  }

  void finish(const Figures& figures, const std::function<void()>& while_waiting) override {
    {
      const std::lock_guard lock(state_->mutex);
      state_->figures[rank_] = figures;
      ++state_->num_finished;
    }
    state_->changed.notify_all();
    while (rank_ == 0) {
      {
        std::unique_lock lock(state_->mutex);
        if (state_->changed.wait_for(lock, kBoardPause, [&] { return state_->num_finished == state_->figures.size(); })) return;
      }
      meeting_point_.fail_if_left();
      while_waiting();
    }
  }

 private:
  static constexpr std::chrono::milliseconds kBoardPause{50};
  MeetingPoint& meeting_point_;
  const std::shared_ptr<BoardState> state_;
  const std::size_t rank_;
  std::vector<Figures> collected_;
};

class ThreadPeer final : public Peers {
 public:
  ThreadPeer(MeetingPoint& meeting_point, int rank) : meeting_point_(meeting_point), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return meeting_point_.size(); }
  int ranks_on_host() const override { return size(); }

  void broadcast(std::vector<std::byte>& bytes, int root) override {
    if (root < 0 || root >= size())
      throw Error(ErrorCode::kInternal, "broadcast from rank " + std::to_string(root) + " that does not exist");
    const std::span<const std::byte> mine = rank_ == root ? std::span<const std::byte>(bytes) : std::span<const std::byte>();
    meeting_point_.exchange(rank_, "broadcast", mine, [&](const auto& slots) {
      if (rank_ != root) bytes = slots[static_cast<std::size_t>(root)].bytes;
    });
  }

  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> bytes) override {
    std::vector<std::vector<std::byte>> result;
    meeting_point_.exchange(rank_, "all_gather", bytes, [&](const auto& slots) {
      for (const auto& slot : slots) result.push_back(slot.bytes);
    });
    return result;
  }

  void sum(std::span<std::uint64_t> values) override {
    meeting_point_.exchange(rank_, "sum", std::as_bytes(values), [&](const auto& slots) {
      for (const auto& slot : slots) {
        if (slot.bytes.size() != values.size_bytes()) throw Error(ErrorCode::kInternal, "ranks sum arrays of unlike lengths");
      }
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = 0;
        for (const auto& slot : slots) values[i] += reinterpret_cast<const std::uint64_t*>(slot.bytes.data())[i];
      }
    });
  }

  void barrier() override {
    meeting_point_.exchange(rank_, "barrier", {}, [](const auto&) {});
  }

  std::unique_ptr<ProgressBoard> make_progress_board() override {
    return std::make_unique<ThreadBoard>(meeting_point_, meeting_point_.board(num_boards_++), rank_);
  }

  std::unique_ptr<WorkBoard> make_work_board(std::span<const std::uint64_t> first_portion, bool spares_last) override {
    return std::make_unique<ThreadWorkBoard>(meeting_point_.division(num_divisions_++, first_portion, spares_last), rank_);
  }

 private:
  MeetingPoint& meeting_point_;
  int rank_;
  std::size_t num_boards_ = 0;
  std::size_t num_divisions_ = 0;
};

}  // namespace

void run_thread_peers(int num_ranks, const std::function<void(Peers&)>& body) {
  if (num_ranks < 1) throw Error(ErrorCode::kInternal, "a world needs at least one rank");
  MeetingPoint meeting_point(num_ranks);
  std::vector<std::exception_ptr> causes(static_cast<std::size_t>(num_ranks));
  std::vector<std::exception_ptr> consequences(static_cast<std::size_t>(num_ranks));
  std::vector<std::thread> threads;
  const auto run = [&](int rank) {
    try {
      ThreadPeer peer(meeting_point, rank);
      body(peer);
    } catch (const AnotherRankFailed&) {
      consequences[static_cast<std::size_t>(rank)] = std::current_exception();
    } catch (...) {
      causes[static_cast<std::size_t>(rank)] = std::current_exception();
    }
    // Also after a normal end: who still waits for this rank would wait for ever.
    meeting_point.leave(rank);
  };
  for (int rank = 0; rank < num_ranks; ++rank) threads.emplace_back(run, rank);
  for (std::thread& thread : threads) thread.join();
  for (const auto* list : {&causes, &consequences}) {
    for (const std::exception_ptr& exception : *list) {
      if (exception) std::rethrow_exception(exception);
    }
  }
}

}  // namespace moeweld
