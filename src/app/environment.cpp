#include "app/environment.h"

#include <unistd.h>

#include <cstdlib>
#include <string>

#include "app/core_share.h"
#include "moeweld/infer/blas_core.h"

namespace moeweld::app {

void settle_environment(char** argv) {
  constexpr const char* kSettled = "MOEWELD_ENVIRONMENT_SETTLED";
  if (std::getenv(kSettled) != nullptr) return;
  const std::string core =
      std::getenv("OPENBLAS_CORETYPE") == nullptr ? infer::better_blas_core(infer::blas_core(), infer::processor_vector_level()) : "";
  const char* blas_threads = std::getenv("OPENBLAS_NUM_THREADS");
  if (std::getenv("OMP_WAIT_POLICY") != nullptr && blas_threads != nullptr && std::string(blas_threads) == "1" && core.empty()) return;
  setenv(kSettled, "1", 1);
  setenv("OMP_WAIT_POLICY", "passive", 0);
  setenv("OPENBLAS_NUM_THREADS", "1", 1);
  if (!core.empty()) setenv("OPENBLAS_CORETYPE", core.c_str(), 0);
  restore_affinity();  // exec would hand the narrowed mask on
  execv("/proc/self/exe", argv);
  // Where /proc is not there the program runs as it is: slower at worst.
}

}  // namespace moeweld::app
