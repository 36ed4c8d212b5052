/// Many lives of merges under the deterministic simulation: tests/support/simulation.h. Ends with 1 and the seeds of the failures.
///
///     bench_simulate --seeds 1000000 [--first 0] [--threads 2]

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <thread>

#include "support/simulation.h"

int main(int argc, char** argv) {
  using namespace moeweld::testing_support;
  using Clock = std::chrono::steady_clock;
  std::uint32_t first = 0;
  std::uint32_t num_seeds = 1'000'000;
  unsigned num_threads = std::max(1U, std::thread::hardware_concurrency());
  CLI::App app("Lives of merges that are killed, fail and lose power, each from a seed");
  app.add_option("--seeds", num_seeds, "how many");
  app.add_option("--first", first, "the first seed");
  app.add_option("--threads", num_threads, "lives at the same time");
  CLI11_PARSE(app, argc, argv);

  const std::filesystem::path directory = std::filesystem::temp_directory_path() / ("moeweld_simulate_" + std::to_string(::getpid()));
  const SimulatedWork work = make_simulated_work(directory.string());
  std::filesystem::remove_all(directory);
  const auto start = Clock::now();
  std::mutex mutex;
  std::uint64_t num_done = 0;
  int num_failures = 0;
  SimulatedLife sum;
  std::atomic<std::uint64_t> next{0};
  const auto report = [&] {
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    std::printf("%llu seeds in %.0f s: %d attempts, %d kills, %d losses of power, %d faults, %llu steps; %d failures\n",
                static_cast<unsigned long long>(num_done), seconds, sum.num_attempts, sum.num_kills, sum.num_power_losses, sum.num_faults,
                static_cast<unsigned long long>(sum.num_steps), num_failures);
    std::fflush(stdout);
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < num_threads; ++i) {
    threads.emplace_back([&] {
      for (std::uint64_t index = next++; index < num_seeds; index = next++) {
        const SimulatedLife life = simulate(work, first + static_cast<std::uint32_t>(index));
        const std::lock_guard lock(mutex);
        sum.num_attempts += life.num_attempts;
        sum.num_kills += life.num_kills;
        sum.num_power_losses += life.num_power_losses;
        sum.num_faults += life.num_faults;
        sum.num_steps += life.num_steps;
        if (++num_done % 10'000 == 0) report();
        if (life.failure.empty()) continue;
        ++num_failures;
        std::printf("FAILED: %s\n", life.failure.c_str());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  report();
  return num_failures == 0 ? 0 : 1;
}
