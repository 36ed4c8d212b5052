#include "app/run.h"
#include "moeweld/plan/planner.h"

namespace moeweld::app {

int run_convert(Peers& peers, Storage& storage, const Options& options) {
  const plan::MergePlan plan = share_plan(peers, [&] {
    plan::ModelSource models(storage, hub_cache(options));
    return plan::make_conversion_plan(config::parse_model_reference(options.input), models, options.plan);
  });
  execute_plan(peers, storage, plan, options);
  return 0;
}

}  // namespace moeweld::app
