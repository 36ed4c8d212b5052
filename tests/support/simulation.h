#pragma once
/// One life of a merge, from a seed: plan → schedule → pipeline → journal, killed or failing at any step, resumed on other ranks, until it
/// is published; and what must hold after each of these.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "moeweld/plan/merge_plan.h"

namespace moeweld::testing_support {

/// What all seeds work on.
struct SimulatedWork {
  struct Merge {
    std::string name;
    plan::MergePlan plan;
    std::vector<std::string> expected;  ///< by output file
  };
  std::vector<Merge> merges;
  std::map<std::string, std::string> inputs;  ///< content by path
};

/// Merges of a few MiB: measured across digest chunks, copied, with router rows from a slot, several outputs of shared files. Inputs go to
/// `directory`, which may be removed then.
SimulatedWork make_simulated_work(const std::string& directory);

/// Adds a merge that must come to what one rank makes of it undisturbed.
void add_merge(const std::string& name, plan::MergePlan plan, const std::string& directory, SimulatedWork& work);

/// How a seed's life went; `failure` is empty if all that must hold did.
struct SimulatedLife {
  std::string failure;
  int num_attempts = 0;
  int num_kills = 0;
  int num_power_losses = 0;
  int num_faults = 0;
  std::uint64_t num_steps = 0;
  std::uint64_t resumed_bytes = 0;  ///< of all attempts
  std::uint64_t taken_bytes = 0;    ///< by ranks from others, in the attempts that ended well
  std::uint64_t trace = 0;          ///< of all steps in their order
};

/// Thread-safe.
SimulatedLife simulate(const SimulatedWork& work, std::uint32_t seed);

}  // namespace moeweld::testing_support
