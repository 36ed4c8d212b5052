#include "app/environment.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "moeweld/infer/blas_core.h"

namespace moeweld::app {

void settle_environment(char** argv) {
  constexpr const char* kSettled = "MOEWELD_ENVIRONMENT_SETTLED";
  if (std::getenv(kSettled) != nullptr) return;
  const std::string core = std::getenv("OPENBLAS_CORETYPE") == nullptr ? infer::better_blas_core() : "";
  if (std::getenv("OMP_WAIT_POLICY") != nullptr && core.empty()) return;
  setenv(kSettled, "1", 1);
  setenv("OMP_WAIT_POLICY", "passive", 0);
  setenv("OPENBLAS_NUM_THREADS", "1", 0);
  if (!core.empty()) setenv("OPENBLAS_CORETYPE", core.c_str(), 0);
  execv("/proc/self/exe", argv);
  // Where /proc is not there the program runs as it is: slower at worst.
}

int default_threads(int ranks_on_host) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return 1;
  const int own = CPU_COUNT(&mask);
  const int all = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  // A mask smaller than the host was given to this rank alone, by the launcher.
  return std::max(1, own < all ? own : own / std::max(1, ranks_on_host));
}

}  // namespace moeweld::app
