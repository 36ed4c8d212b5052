#pragma once
/// One function per command. Each is called by every rank and throws Error, the same on every rank.

#include "app/log.h"
#include "app/options.h"
#include "app/world.h"

namespace moeweld::app {

void run_merge(World& world, const Options& options, const Log& log);
void run_extract(World& world, const Options& options, const Log& log);
void run_plan(World& world, const Options& options, const Log& log);
void run_verify(World& world, const Options& options, const Log& log);
void run_inspect(World& world, const Options& options, const Log& log);
void run_methods(World& world, const Options& options, const Log& log);

}  // namespace moeweld::app
