#pragma once
/// How far a forward pass is.

#include <chrono>
#include <cstddef>

namespace moeweld::app {

/// "layer 12 of 80": one live line on a terminal, else a plain line at most every 10 s.
class LayerProgress {
 public:
  LayerProgress(bool json, bool quiet);
  ~LayerProgress();
  void update(std::size_t step, std::size_t num_steps);
  void finish();

 private:
  bool json_;
  bool quiet_;
  bool terminal_;
  bool live_ = false;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace moeweld::app
