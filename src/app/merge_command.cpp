#include "app/run.h"

namespace moeweld::app {

int run_merge(Peers& peers, Storage& storage, const Options& options) {
  const plan::MergePlan plan = share_plan(peers, [&] { return plan_configuration(storage, options); });
  execute_plan(peers, storage, plan, options);
  return 0;
}

}  // namespace moeweld::app
