#include "app/run.h"

namespace moeweld::app {

int run_merge(Peers& peers, Storage& storage, const Options& options) {
  const plan::MergePlan plan = share_plan(peers, [&] {
    plan::MergePlan made = plan_configuration(storage, options);
    if (options.check) check_before_merge(storage, options, made);
    return made;
  });
  execute_plan(peers, storage, plan, options);
  return options.check ? check_model(peers, storage, options, options.output) : 0;
}

}  // namespace moeweld::app
