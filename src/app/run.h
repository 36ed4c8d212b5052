#pragma once
/// What commands share: who the peers are, planning on rank 0, running a plan on all.

#include <functional>
#include <memory>
#include <vector>

#include "app/options.h"
#include "moeweld/base/peers.h"
#include "moeweld/config/merge_config.h"
#include "moeweld/exec/execute.h"
#include "moeweld/plan/merge_plan.h"

namespace moeweld::app {

/// The commands. Each returns the exit code; Errors are reported by main.
int run_merge(Peers& peers, Storage& storage, const Options& options);
int run_plan(Storage& storage, const Options& options);
/// plan --align: collective, since tensors are read.
int run_aligned_plan(Peers& peers, Storage& storage, const Options& options);
int run_verify(Peers& peers, Storage& storage, const Options& options);
int run_inspect(Storage& storage, const Options& options);
int run_extract(Peers& peers, Storage& storage, const Options& options);
int run_reduce(Peers& peers, Storage& storage, const Options& options);
int run_tokenize(Storage& storage, const Options& options);
int run_convert(Peers& peers, Storage& storage, const Options& options);
int run_report(Storage& storage, const Options& options);
int run_methods();
int run_similarity(Peers& peers, Storage& storage, const Options& options);
/// 0 complete, 75 to be continued, 7 a job is writing it, 3 nothing is there.
int run_status(Storage& storage, const Options& options);
int run_diff(Peers& peers, Storage& storage, const Options& options);
int run_check(Peers& peers, Storage& storage, const Options& options);

/// Runs the model in `directory` on the options' text or ids, or without any on a few ids of its own, and says what came out. Returns the
/// exit code. Collective; throws the same Error on every rank.
int check_model(Peers& peers, Storage& storage, const Options& options, const std::string& directory);

/// merge --check: what can be refused before anything is merged. Rank 0.
void check_before_merge(Storage& storage, const Options& options, const plan::MergePlan& plan);

/// merge's method table in the words of config.
std::vector<config::MethodInfo> method_infos();

/// Where org/name models are looked for.
formats::HubCacheEnvironment hub_cache(const Options& options);

/// The configuration of options.input, planned. Adds a note about flags without effect.
plan::MergePlan plan_configuration(Storage& storage, const Options& options);

/// Rank 0 makes the plan, all get it. Collective; throws the same Error on every rank.
plan::MergePlan share_plan(Peers& peers, const std::function<plan::MergePlan()>& make);

/// What `moeweld plan` prints.
void print_plan(const plan::MergePlan& plan, const Options& options);

/// Preflight, execution with progress, summary. Collective.
void execute_plan(Peers& peers, Storage& storage, const plan::MergePlan& plan, const Options& options);

}  // namespace moeweld::app
