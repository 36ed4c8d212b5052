#pragma once
/// A communicator that is given back.

#include <mpi.h>

#include <utility>

namespace moeweld::dist {

class Communicator {
 public:
  Communicator() = default;
  ~Communicator() { reset(); }
  Communicator(Communicator&& other) noexcept : comm_(std::exchange(other.comm_, MPI_COMM_NULL)) {}
  Communicator& operator=(Communicator&& other) noexcept {
    if (this != &other) {
      reset();
      comm_ = std::exchange(other.comm_, MPI_COMM_NULL);
    }
    return *this;
  }
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  MPI_Comm get() const { return comm_; }
  /// For the call that makes it.
  MPI_Comm* address() { return &comm_; }

 private:
  void reset() {
    int finalized = 0;
    if (comm_ != MPI_COMM_NULL && MPI_Finalized(&finalized) == MPI_SUCCESS && finalized == 0) MPI_Comm_free(&comm_);
  }
  MPI_Comm comm_ = MPI_COMM_NULL;
};

}  // namespace moeweld::dist
