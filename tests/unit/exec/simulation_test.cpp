#include "support/simulation.h"

#include <gtest/gtest.h>

#include <atomic>
#include <iostream>
#include <thread>

#include "unit/temporary_directory.h"

namespace moeweld::testing_support {
namespace {

/// More of them, and others: bench_simulate. Under sanitizers, which take many times as long, every kind of life is lived too.
#if defined(__SANITIZE_THREAD__)
constexpr std::uint32_t kNumSeeds = 200;
#elif defined(__SANITIZE_ADDRESS__)
constexpr std::uint32_t kNumSeeds = 500;
#else
constexpr std::uint32_t kNumSeeds = 10'000;
#endif

TEST(Simulation, EveryLifeEndsInTheSameBytes) {
  const TemporaryDirectory directory;
  const SimulatedWork work = make_simulated_work(directory.path());
  std::atomic<std::uint32_t> next{0};
  std::atomic<int> num_attempts{0};
  std::atomic<int> num_kills{0};
  std::atomic<int> num_power_losses{0};
  std::atomic<int> num_faults{0};
  std::atomic<int> num_failures{0};
  std::atomic<std::uint64_t> resumed_bytes{0};
  std::atomic<std::uint64_t> taken_bytes{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      for (std::uint32_t seed = next++; seed < kNumSeeds && num_failures < 10; seed = next++) {
        const SimulatedLife life = simulate(work, seed);
        num_attempts += life.num_attempts;
        num_kills += life.num_kills;
        num_power_losses += life.num_power_losses;
        num_faults += life.num_faults;
        resumed_bytes += life.resumed_bytes;
        taken_bytes += life.taken_bytes;
        if (life.failure.empty()) continue;
        ++num_failures;
        ADD_FAILURE() << life.failure;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::cout << num_attempts << " attempts, " << num_kills << " kills, " << num_power_losses << " losses of power, " << num_faults
            << " faults\n";
  // A simulation that disturbs nothing shows nothing.
  EXPECT_GT(num_kills, static_cast<int>(kNumSeeds) / 2);
  EXPECT_GT(num_power_losses, static_cast<int>(kNumSeeds) / 4);
  EXPECT_GT(num_faults, static_cast<int>(kNumSeeds) / 10);
  EXPECT_GT(resumed_bytes, std::uint64_t{kNumSeeds} << 16);
  EXPECT_GT(taken_bytes, std::uint64_t{kNumSeeds} << 11);  // the ranks' few portions leave little to take
}

TEST(Simulation, ASeedIsPlayedAgainStepByStep) {
  const TemporaryDirectory directory;
  const SimulatedWork work = make_simulated_work(directory.path());
  for (std::uint32_t seed = 0; seed < 50; ++seed) {
    const SimulatedLife once = simulate(work, seed);
    const SimulatedLife again = simulate(work, seed);
    EXPECT_EQ(once.trace, again.trace) << seed;
    EXPECT_EQ(once.num_steps, again.num_steps) << seed;
    EXPECT_EQ(once.num_attempts, again.num_attempts) << seed;
  }
}

}  // namespace
}  // namespace moeweld::testing_support
