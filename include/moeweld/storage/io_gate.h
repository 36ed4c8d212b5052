#pragma once
/// Bounds how many reads, or writes, of the ranks of one host are under way at the same time. A gate is about speed: it never fails, and
/// never holds anyone for ever.

#include <cstdint>
#include <memory>
#include <string>

#include "moeweld/base/peers.h"
#include "moeweld/storage/storage.h"

namespace moeweld {

class IoGate {
 public:
  virtual ~IoGate() = default;
  /// Waits for its turn. Returns false when that took unreasonably long (a rank that died holds it): then nothing is to be released. Any
  /// thread.
  virtual bool enter() = 0;
  virtual void leave() = 0;
};

/// Holds a gate for a scope; without a gate it does nothing.
class IoTurn {
 public:
  explicit IoTurn(IoGate* gate) : gate_(gate != nullptr && gate->enter() ? gate : nullptr) {}
  ~IoTurn() {
    if (gate_ != nullptr) gate_->leave();
  }
  IoTurn(const IoTurn&) = delete;
  IoTurn& operator=(const IoTurn&) = delete;

 private:
  IoGate* gate_;
};

/// What all reads and all writes of a storage pass; empty: unbounded.
struct IoGates {
  std::shared_ptr<IoGate> reads;
  std::shared_ptr<IoGate> writes;
};

/// A gate for the threads of this process.
std::shared_ptr<IoGate> make_process_gate(int most_at_once);

/// Gates that the ranks of a host pass together: counters in shared memory that has no name any more when this returns, so that nothing is
/// left behind by whatever end. Where the ranks of a host cannot share memory each has gates of its own for its part of the numbers, one at
/// least. `host` is equal for the ranks of a host. Collective.
IoGates make_host_gates(Peers& peers, const std::string& host, int most_reads, int most_writes);

/// The operating system's files behind these gates.
std::shared_ptr<Storage> make_posix_storage(IoGates gates);

}  // namespace moeweld
