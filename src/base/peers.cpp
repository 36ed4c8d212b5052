#include "moeweld/base/peers.h"

#include <algorithm>
#include <new>
#include <string>

#include "moeweld/base/archive.h"

namespace moeweld {
namespace {

class SingleBoard final : public ProgressBoard {
 public:
  void publish(const Figures& figures) override { figures_ = figures; }
  std::span<const Figures> collect() override { return {&figures_, 1}; }
  void finish(const Figures& figures, const std::function<void()>&) override { publish(figures); }

 private:
  Figures figures_{};
};

class SinglePeer final : public Peers {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void broadcast(std::vector<std::byte>&, int root) override {
    if (root != 0) throw Error(ErrorCode::kInternal, "broadcast from rank " + std::to_string(root) + " in a world of one rank");
  }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> bytes) override { return {{bytes.begin(), bytes.end()}}; }
  void sum(std::span<std::uint64_t>) override {}
  void barrier() override {}
  int ranks_on_host() const override { return 1; }
  std::unique_ptr<ProgressBoard> make_progress_board() override { return std::make_unique<SingleBoard>(); }
  std::unique_ptr<WorkBoard> make_work_board(std::span<const std::uint64_t> first_portion, bool) override {
    return make_single_work_board(first_portion);
  }
};

}  // namespace

void agree(Peers& peers, const ProblemList& local) {
  const std::vector<std::byte> mine = to_archive(local.problems());
  std::vector<Problem> all;
  for (const std::vector<std::byte>& bytes : peers.all_gather(mine)) {
    for (Problem& problem : from_archive<std::vector<Problem>>(bytes)) {
      if (std::find(all.begin(), all.end(), problem) == all.end()) all.push_back(std::move(problem));
    }
  }
  if (!all.empty()) throw Error(std::move(all));
}

void agree_on(Peers& peers, const std::function<void()>& action) {
  ProblemList problems;
  const std::string who = "rank " + std::to_string(peers.rank());
  try {
    action();
  } catch (const Error& error) {
    problems.add(error);
  } catch (const std::bad_alloc&) {
    problems.add(Problem{ErrorCode::kInternal, who + " ran out of memory; give it more, or lower the memory limit", "", 0, ""});
  } catch (const std::exception& error) {
    problems.add(Problem{ErrorCode::kInternal, who + " failed unexpectedly: " + error.what(), "", 0, ""});
  } catch (...) {
    problems.add(Problem{ErrorCode::kInternal, who + " failed with an exception of unknown type", "", 0, ""});
  }
  agree(peers, problems);
}

std::unique_ptr<Peers> make_single_peer() { return std::make_unique<SinglePeer>(); }

}  // namespace moeweld
