#include "moeweld/storage/io_gate.h"

#include <fcntl.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>

#include "moeweld/base/archive.h"
#include "moeweld/base/trace.h"

namespace moeweld {
namespace {

/// Longer than any read or write of a file system that works.
constexpr std::time_t kPatienceSeconds = 120;

class SemaphoreGate : public IoGate {
 public:
  bool enter() override {
    if (sem_trywait(semaphore_) == 0) return true;
    const trace::Span span(trace::Kind::kWait, "wait for a turn");
    timespec until{};
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += kPatienceSeconds;
    int result = 0;
    do {
      result = sem_timedwait(semaphore_, &until);
    } while (result != 0 && errno == EINTR);
    return result == 0;
  }
  void leave() override { sem_post(semaphore_); }

 protected:
  sem_t* semaphore_ = nullptr;
};

class ProcessGate final : public SemaphoreGate {
 public:
  explicit ProcessGate(int most_at_once) {
    sem_init(&own_, 0, static_cast<unsigned>(std::max(1, most_at_once)));
    semaphore_ = &own_;
  }
  ~ProcessGate() override { sem_destroy(&own_); }

 private:
  sem_t own_{};
};

struct Counters {
  sem_t reads;
  sem_t writes;
};

/// A mapping of the counters, kept as long as one of its gates lives.
class SharedCounters {
 public:
  static std::shared_ptr<SharedCounters> open(const std::string& name, bool create) {
    const int descriptor = shm_open(name.c_str(), create ? O_RDWR | O_CREAT | O_EXCL : O_RDWR, 0600);
    if (descriptor < 0) return nullptr;
    void* memory = MAP_FAILED;
    if (!create || ftruncate(descriptor, sizeof(Counters)) == 0)
      memory = mmap(nullptr, sizeof(Counters), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (memory == MAP_FAILED) return nullptr;
    return std::shared_ptr<SharedCounters>(new SharedCounters(memory));
  }
  ~SharedCounters() { munmap(memory_, sizeof(Counters)); }
  SharedCounters(const SharedCounters&) = delete;
  SharedCounters& operator=(const SharedCounters&) = delete;

  Counters& operator*() const { return *static_cast<Counters*>(memory_); }

 private:
  explicit SharedCounters(void* memory) : memory_(memory) {}
  void* memory_;
};

class SharedGate final : public SemaphoreGate {
 public:
  SharedGate(std::shared_ptr<SharedCounters> counters, sem_t& semaphore) : counters_(std::move(counters)) { semaphore_ = &semaphore; }

 private:
  const std::shared_ptr<SharedCounters> counters_;
};

/// What ranks tell each other to find their host's.
struct Place {
  std::string host;
  std::string name;  // of the shared memory that this rank would make
};
template <class Archive>
void serialize(Archive& archive, Place& value) {
  archive(value.host, value.name);
}

std::string new_name() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return "/moeweld-" + std::to_string(getpid()) + "-" + std::to_string(now.tv_sec) + "-" + std::to_string(now.tv_nsec);
}

/// Whether all ranks of this rank's host are content. Collective.
bool host_agrees(Peers& peers, const std::vector<Place>& places, bool content) {
  const std::byte mine{static_cast<unsigned char>(content ? 1 : 0)};
  const auto all = peers.all_gather(std::span(&mine, 1));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (places[rank].host == places[static_cast<std::size_t>(peers.rank())].host && all[rank].at(0) == std::byte{0}) return false;
  }
  return true;
}

}  // namespace

std::shared_ptr<IoGate> make_process_gate(int most_at_once) { return std::make_shared<ProcessGate>(most_at_once); }

IoGates make_host_gates(Peers& peers, const std::string& host, int most_reads, int most_writes) {
  Place mine{host, new_name()};
  std::vector<Place> places;
  for (const std::vector<std::byte>& bytes : peers.all_gather(to_archive(mine))) places.push_back(from_archive<Place>(bytes));
  int ranks_on_host = 0;
  int leader = -1;
  for (std::size_t rank = 0; rank < places.size(); ++rank) {
    if (places[rank].host != host) continue;
    ++ranks_on_host;
    if (leader < 0) leader = static_cast<int>(rank);
  }
  const std::string name = places[static_cast<std::size_t>(leader)].name;
  const bool leads = leader == peers.rank();
  std::shared_ptr<SharedCounters> counters;
  if (leads && ranks_on_host > 1) {
    counters = SharedCounters::open(name, true);
    if (counters) {
      sem_init(&(**counters).reads, 1, static_cast<unsigned>(std::max(1, most_reads)));
      sem_init(&(**counters).writes, 1, static_cast<unsigned>(std::max(1, most_writes)));
    }
  }
  peers.barrier();
  if (!leads) counters = SharedCounters::open(name, false);
  const bool is_shared = host_agrees(peers, places, counters != nullptr);
  if (leads && ranks_on_host > 1) shm_unlink(name.c_str());
  if (!is_shared) return {make_process_gate(most_reads / ranks_on_host), make_process_gate(most_writes / ranks_on_host)};
  return {std::make_shared<SharedGate>(counters, (**counters).reads), std::make_shared<SharedGate>(counters, (**counters).writes)};
}

}  // namespace moeweld
