#include "moeweld/base/work_board.h"

namespace moeweld {
namespace {

class SingleWorkBoard final : public WorkBoard {
 public:
  explicit SingleWorkBoard(std::span<const std::uint64_t> first_portion) : division_(first_portion, false) {}
  void ask() override {}
  std::optional<Answer> poll() override { return Answer{division_.take(0)}; }
  void leave(bool) override {}

 private:
  WorkDivision division_;
};

}  // namespace

std::unique_ptr<WorkBoard> make_single_work_board(std::span<const std::uint64_t> first_portion) {
  return std::make_unique<SingleWorkBoard>(first_portion);
}

}  // namespace moeweld
