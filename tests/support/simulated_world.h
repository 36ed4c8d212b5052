#pragma once
/// Ranks as threads of which one runs at a time, and a seed decides which: an interleaving that can be played again.

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "moeweld/base/peers.h"

namespace moeweld::testing_support {

/// Thrown by every operation of a rank that has been killed.
struct Killed : std::exception {
  const char* what() const noexcept override { return "killed"; }
};
/// No rank can go on: a hang of the real program.
struct Deadlock : std::exception {
  const char* what() const noexcept override { return "no rank can go on"; }
};

struct Kill {
  std::uint64_t step = ~std::uint64_t{0};  ///< the rank whose turn it is dies here
  std::uint64_t others_later = 0;          ///< so many steps on the launcher has killed the others
};

class SimulatedWorld {
 public:
  SimulatedWorld(int num_ranks, std::uint32_t seed, Kill kill)
      : ranks_(static_cast<std::size_t>(num_ranks)), slots_(ranks_.size()), generator_(seed), kill_(kill) {}

  /// Runs `body` on every rank. Returns each rank's exception, or null.
  std::vector<std::exception_ptr> run(const std::function<void(Peers&)>& body) {
    std::vector<std::exception_ptr> failures(ranks_.size());
    {
      const std::lock_guard lock(mutex_);
      running_ = generator_() % ranks_.size();
    }
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
      threads.emplace_back([&, rank] {
        current_rank() = rank;
        try {
          {
            std::unique_lock lock(mutex_);
            wait_for_turn(lock, rank);
          }
          Peer peer(*this, rank);
          body(peer);
        } catch (...) {
          failures[rank] = std::current_exception();
        }
        leave(rank);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return failures;
  }

  /// A point at which another rank may go on, or this one dies. From a rank's thread.
  void step(std::string_view what) {
    const std::size_t rank = current_rank();
    std::unique_lock lock(mutex_);
    if (ranks_[rank].is_dead) throw Killed();
    ++num_steps_;
    trace_ = (trace_ ^ (rank + 1)) * 1099511628211U;
    for (const char letter : what) trace_ = (trace_ ^ static_cast<unsigned char>(letter)) * 1099511628211U;
    if (num_steps_ == kill_.step) ranks_[rank].is_dead = true;
    if (num_steps_ >= kill_.step && num_steps_ - kill_.step >= kill_.others_later) {
      for (Rank& other : ranks_) other.is_dead = true;
    }
    if (ranks_[rank].is_dead) throw Killed();
    hand_over(lock, rank);
    if (ranks_[rank].is_dead) throw Killed();
  }

  std::uint64_t num_steps() const { return num_steps_; }
  /// Of all steps in their order: equal for equal interleavings.
  std::uint64_t trace() const { return trace_; }
  bool was_killed() const { return num_steps_ >= kill_.step; }

 private:
  struct Rank {
    std::function<bool()> waits_for;  // empty: can go on
    bool is_dead = false;
    bool has_left = false;
    std::condition_variable turn;
  };
  struct Slot {
    std::string_view operation;
    std::vector<std::byte> bytes;
  };

  static std::size_t& current_rank() {
    thread_local std::size_t rank = 0;
    return rank;
  }

  bool someone_left() const {
    for (const Rank& rank : ranks_) {
      if (rank.is_dead || rank.has_left) return true;
    }
    return false;
  }

  /// With the lock: chooses who runs next among those who can.
  void choose() {
    std::vector<std::size_t> ready;
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
      if (!ranks_[rank].has_left && (!ranks_[rank].waits_for || ranks_[rank].waits_for())) ready.push_back(rank);
    }
    if (ready.empty()) {
      for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
        if (!ranks_[rank].has_left) ready.push_back(rank);
      }
      if (ready.empty()) return;
      is_deadlocked_ = true;
    }
    running_ = ready[generator_() % ready.size()];
    ranks_[running_].turn.notify_one();
  }
  void wait_for_turn(std::unique_lock<std::mutex>& lock, std::size_t rank) {
    ranks_[rank].turn.wait(lock, [&] { return running_ == rank; });
    if (is_deadlocked_) throw Deadlock();
  }
  void hand_over(std::unique_lock<std::mutex>& lock, std::size_t rank) {
    choose();
    wait_for_turn(lock, rank);
  }
  void wait_until(std::unique_lock<std::mutex>& lock, std::size_t rank, std::function<bool()> condition) {
    ranks_[rank].waits_for = std::move(condition);
    hand_over(lock, rank);
    ranks_[rank].waits_for = nullptr;
  }
  void leave(std::size_t rank) {
    const std::lock_guard lock(mutex_);
    ranks_[rank].has_left = true;
    choose();
  }

  template <class Read>
  void exchange(std::size_t rank, std::string_view operation, std::span<const std::byte> bytes, Read&& read) {
    step(operation);
    std::unique_lock lock(mutex_);
    slots_[rank] = {operation, {bytes.begin(), bytes.end()}};
    meet(lock, rank);
    for (const Slot& slot : slots_) {
      if (slot.operation != operation) throw Error(ErrorCode::kInternal, "ranks call different collectives");
    }
    read(slots_);
    meet(lock, rank);
  }
  void meet(std::unique_lock<std::mutex>& lock, std::size_t rank) {
    const std::uint64_t generation = generation_;
    if (++num_waiting_ == ranks_.size()) {
      num_waiting_ = 0;
      ++generation_;
      return;
    }
    wait_until(lock, rank, [this, generation] { return generation_ != generation || someone_left(); });
    if (ranks_[rank].is_dead) throw Killed();
    if (generation_ == generation) throw Error(ErrorCode::kPeerFailed, "another rank has left");
  }

  class Board final : public ProgressBoard {
   public:
    Board(SimulatedWorld& world, std::size_t rank) : world_(world), rank_(rank) {}
    void publish(const Figures&) override {}
    std::span<const Figures> collect() override { return figures_; }
    void finish(const Figures&, const std::function<void()>&) override {
      world_.step("finish");
      std::unique_lock lock(world_.mutex_);
      const std::uint64_t wanted = ++world_.num_boards_finished_;
      static_cast<void>(wanted);
      if (rank_ != 0) return;
      world_.wait_until(lock, rank_, [this] { return world_.num_boards_finished_ % world_.ranks_.size() == 0 || world_.someone_left(); });
      if (world_.ranks_[rank_].is_dead) throw Killed();
      if (world_.num_boards_finished_ % world_.ranks_.size() != 0) throw Error(ErrorCode::kPeerFailed, "another rank has left");
    }

   private:
    SimulatedWorld& world_;
    std::size_t rank_;
    std::vector<Figures> figures_ = std::vector<Figures>(rank_ == 0 ? world_.ranks_.size() : 0);
  };

  class SimulatedWorkBoard final : public WorkBoard {
   public:
    SimulatedWorkBoard(SimulatedWorld& world, std::size_t rank, std::span<const std::uint64_t> first_portion) : world_(world), rank_(rank) {
      const std::lock_guard lock(world_.mutex_);
      if (!world_.division_) world_.division_.emplace(first_portion, /*spares_last=*/false);
    }
    void ask() override { world_.step("ask"); }
    std::optional<Answer> poll() override {
      const std::lock_guard lock(world_.mutex_);
      return Answer{world_.division_->take(rank_)};
    }
    void leave(bool failed) override {
      const std::lock_guard lock(world_.mutex_);
      if (failed && !world_.ranks_[rank_].is_dead) world_.division_->close();
    }

   private:
    SimulatedWorld& world_;
    const std::size_t rank_;
  };

  class Peer final : public Peers {
   public:
    Peer(SimulatedWorld& world, std::size_t rank) : world_(world), rank_(rank) {}
    int rank() const override { return static_cast<int>(rank_); }
    int size() const override { return static_cast<int>(world_.ranks_.size()); }
    int ranks_on_host() const override { return size(); }
    void broadcast(std::vector<std::byte>& bytes, int root) override {
      const auto from = static_cast<std::size_t>(root);
      world_.exchange(rank_, "broadcast", rank_ == from ? std::span<const std::byte>(bytes) : std::span<const std::byte>(),
                      [&](const auto& slots) {
                        if (rank_ != from) bytes = slots[from].bytes;
                      });
    }
    std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> bytes) override {
      std::vector<std::vector<std::byte>> result;
      world_.exchange(rank_, "all_gather", bytes, [&](const auto& slots) {
        for (const Slot& slot : slots) result.push_back(slot.bytes);
      });
      return result;
    }
    void sum(std::span<std::uint64_t> values) override {
      world_.exchange(rank_, "sum", std::as_bytes(values), [&](const auto& slots) {
        for (std::size_t i = 0; i < values.size(); ++i) {
          values[i] = 0;
          for (const Slot& slot : slots) values[i] += reinterpret_cast<const std::uint64_t*>(slot.bytes.data())[i];
        }
      });
    }
    void barrier() override {
      world_.exchange(rank_, "barrier", {}, [](const auto&) {});
    }
    std::unique_ptr<ProgressBoard> make_progress_board() override { return std::make_unique<Board>(world_, rank_); }
    std::unique_ptr<WorkBoard> make_work_board(std::span<const std::uint64_t> first_portion, bool) override {
      return std::make_unique<SimulatedWorkBoard>(world_, rank_, first_portion);
    }

   private:
    SimulatedWorld& world_;
    std::size_t rank_;
  };

  std::vector<Rank> ranks_;
  std::vector<Slot> slots_;
  std::mt19937 generator_;
  const Kill kill_;
  std::mutex mutex_;
  std::size_t running_ = 0;
  std::size_t num_waiting_ = 0;
  std::uint64_t generation_ = 0;
  std::uint64_t num_boards_finished_ = 0;
  std::optional<WorkDivision> division_;  // one merge is run in a world
  std::uint64_t num_steps_ = 0;
  std::uint64_t trace_ = 14695981039346656037U;
  bool is_deadlocked_ = false;
};

}  // namespace moeweld::testing_support
