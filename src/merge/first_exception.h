#pragma once
/// Exceptions must not leave an OpenMP region: the first one waits here until the region is over.

#include <exception>
#include <mutex>

namespace moeweld::merge {

class FirstException {
 public:
  template <typename Action>
  void guard(Action&& action) noexcept {
    try {
      action();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!exception_) exception_ = std::current_exception();
    }
  }
  void rethrow_if_any() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr exception_;
};

}  // namespace moeweld::merge
