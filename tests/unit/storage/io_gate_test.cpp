#include "moeweld/storage/io_gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include "unit/temporary_directory.h"

namespace moeweld {
namespace {

/// The most that were inside at once, of `num_threads` threads that each go through ten times.
void pass_often(IoGate& gate, std::atomic<int>& inside, std::atomic<int>& most, int num_threads) {
  std::vector<std::thread> threads;
  for (int i = 0; i < num_threads; ++i) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < 10; ++turn) {
        const IoTurn holds(&gate);
        const int now = ++inside;
        for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        --inside;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(IoGate, LetsThroughAsManyThreadsAsItSays) {
  for (const int limit : {1, 3}) {
    std::atomic<int> inside{0};
    std::atomic<int> most{0};
    pass_often(*make_process_gate(limit), inside, most, 8);
    EXPECT_EQ(most, limit);
  }
}

TEST(IoGate, RanksOfAHostShareItAndOtherHostsHaveTheirOwn) {
  std::atomic<int> inside[2] = {0, 0};
  std::atomic<int> most[2] = {0, 0};
  run_thread_peers(5, [&](Peers& peers) {
    const auto host = static_cast<std::size_t>(peers.rank() < 3 ? 0 : 1);
    const IoGates gates = make_host_gates(peers, "host " + std::to_string(host), 2, 1);
    peers.barrier();
    pass_often(*gates.reads, inside[host], most[host], 2);
    peers.barrier();
  });
  EXPECT_EQ(most[0], 2);
  EXPECT_EQ(most[1], 2);
}

TEST(IoGate, NothingIsLeftInSharedMemory) {
  run_thread_peers(3, [](Peers& peers) { make_host_gates(peers, "host", 2, 2); });
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    EXPECT_FALSE(entry.path().filename().string().starts_with("moeweld-" + std::to_string(getpid()))) << entry.path();
  }
}

class CountingGate final : public IoGate {
 public:
  bool enter() override { return ++entered > 0; }
  void leave() override { ++left; }
  int entered = 0;
  int left = 0;
};

TEST(IoGate, EveryReadAndWriteOfAStoragePassesIt) {
  const TemporaryDirectory directory;
  const auto reads = std::make_shared<CountingGate>();
  const auto writes = std::make_shared<CountingGate>();
  const auto storage = make_posix_storage({reads, writes});
  std::vector<std::byte> bytes(100, std::byte{7});
  const auto output = storage->open_output(directory / "file", IoMode::kBuffered);
  output->write(0, bytes);
  output->write(100, bytes);
  EXPECT_EQ(writes->entered, 2);
  EXPECT_EQ(writes->left, 2);
  const auto input = storage->open_input(directory / "file", IoMode::kBuffered);
  input->read(50, bytes);
  EXPECT_THROW(input->read(150, bytes), Error);
  EXPECT_EQ(reads->entered, 2);
  EXPECT_EQ(reads->left, 2);
}

}  // namespace
}  // namespace moeweld
