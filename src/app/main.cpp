#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "app/environment.h"
#include "app/error_report.h"
#include "app/interruption.h"
#include "app/node_agreement.h"
#include "app/options.h"
#include "app/run.h"
#include "app/trace_file.h"
#include "app/watchdog.h"
#include "moeweld/dist/mpi_peers.h"
#include "moeweld/exec/execute.h"
#include "moeweld/formats/checkpoint.h"
#include "moeweld/hdf5/hdf5_file.h"

namespace moeweld::app {
namespace {

const char* verb(Command command) {
  switch (command) {
    case Command::kMerge:
      return "merge";
    case Command::kPlan:
      return "plan";
    case Command::kVerify:
      return "verify";
    case Command::kInspect:
      return "inspect";
    case Command::kExtract:
      return "extract";
    case Command::kReduce:
      return "reduce";
    case Command::kTokenize:
      return "tokenize";
    case Command::kMethods:
      return "list methods";
    case Command::kStatus:
      return "say the status";
    case Command::kCheck:
      return "check";
    case Command::kDiff:
      return "compare";
    case Command::kSimilarity:
      return "compare experts";
    case Command::kConvert:
      return "convert";
    case Command::kReport:
      return "report";
  }
  return "run";
}

bool is_computed_by_all(const Options& options) {
  const Command command = options.command;
  if (command == Command::kPlan) return options.align;
  if (command == Command::kSimilarity) return true;
  return command == Command::kMerge || command == Command::kExtract || command == Command::kReduce || command == Command::kVerify ||
         command == Command::kCheck || command == Command::kDiff || command == Command::kConvert;
}

bool writes_output(Command command) {
  return command == Command::kMerge || command == Command::kExtract || command == Command::kReduce || command == Command::kConvert;
}

/// The storage that the node's ranks share, and the options with what is left open in them agreed upon.
std::shared_ptr<Storage> settle_on_node(Peers& peers, Options& options) {
  const NodeAgreement agreement = agree_on_node(peers, options);
  options.threads = agreement.threads;
  if (peers.rank() == 0 && !options.quiet && !options.log_json && !options.json) {
    if (options.verbose) fmt::print("{}\n", agreement.text());
    if (!agreement.warning.empty()) fmt::print(stderr, "moeweld: {}\n", agreement.warning);
    std::fflush(stdout);
  }
  return make_node_storage(peers, agreement);
}

int run_command(Peers& peers, Storage& storage, const Options& options) {
  const bool first = peers.rank() == 0;
  switch (options.command) {
    case Command::kMerge:
      return run_merge(peers, storage, options);
    case Command::kExtract:
      return run_extract(peers, storage, options);
    case Command::kReduce:
      return run_reduce(peers, storage, options);
    case Command::kVerify:
      return run_verify(peers, storage, options);
    case Command::kCheck:
      return run_check(peers, storage, options);
    case Command::kDiff:
      return run_diff(peers, storage, options);
    case Command::kSimilarity:
      return run_similarity(peers, storage, options);
    case Command::kConvert:
      return run_convert(peers, storage, options);
    case Command::kPlan:
      if (options.align) return run_aligned_plan(peers, storage, options);
      return first ? run_plan(storage, options) : 0;
    case Command::kInspect:
      return first ? run_inspect(storage, options) : 0;
    case Command::kTokenize:
      return first ? run_tokenize(storage, options) : 0;
    case Command::kReport:
      return first ? run_report(storage, options) : 0;
    case Command::kMethods:
      return first ? run_methods() : 0;
    case Command::kStatus:
      return first ? run_status(storage, options) : 0;
  }
  return 1;
}

int dispatch(Peers& peers, Options options) {
  if (!is_computed_by_all(options)) return run_command(peers, *make_posix_storage(), options);
  const Watchdog watchdog(peers.rank(), peers.size(), std::chrono::duration<double>(options.stall_timeout_seconds),
                          {.as_json = options.log_json, .writes_output = writes_output(options.command)});
  const std::shared_ptr<Storage> storage = settle_on_node(peers, options);
  TraceFile trace(peers, options.trace_file);
  try {
    const int code = run_command(peers, *storage, options);
    trace.finish(true);
    return code;
  } catch (const Error& error) {
    // The timeline of what failed is the one that is wanted most. All ranks have this Error, unless the transport broke.
    try {
      trace.finish(error.code() != ErrorCode::kPeerFailed);
    } catch (const Error&) {  // the first error is the one to report
    }
    throw;
  }
}

LeftBehind left_behind(const Error& error, const Options& options) {
  if (!writes_output(options.command)) return LeftBehind::kNotAsked;
  if (error.code() == ErrorCode::kOutputExists) return LeftBehind::kOutputAsItWas;
  if (!exec::can_be_resumed(error)) return LeftBehind::kNothing;
  try {
    const std::shared_ptr<Storage> storage = make_posix_storage();
    if (storage->exists(exec::partial_directory(options.output))) return LeftBehind::kPartial;
    // Statistics are written when OUT is there; the error says so.
    return !options.stats_file.empty() && storage->exists(options.output) ? LeftBehind::kNotAsked : LeftBehind::kNothing;
  } catch (const Error&) {
    return LeftBehind::kNothing;
  }
}

/// Every rank has the same Error, except for commands that rank 0 runs alone; rank 0 speaks.
int report(const Error& error, const Options& options, int rank) {
  if (rank == 0) {
    std::fflush(stdout);
    fmt::print(stderr, "{}", options.log_json ? error_json(error) : error_text(error, verb(options.command), left_behind(error, options)));
    std::fflush(stderr);
  }
  return exit_code(error.code());
}

int run(const Options& options, bool launched) {
  std::unique_ptr<Peers> peers;
  try {
    peers = launched ? dist::make_mpi_peers() : make_single_peer();
    return dispatch(*peers, options);
  } catch (const Error& error) {
    const int code = report(error, options, peers ? peers->rank() : 0);
    // A broken transport is not agreed upon: the other ranks may wait for this one.
    if (launched && error.code() == ErrorCode::kPeerFailed) dist::abort_world(code);
    return code;
  } catch (const std::exception& exception) {
    fmt::print(stderr, "moeweld: a defect of moeweld, or no memory: {}\n", exception.what());
    if (launched) dist::abort_world(1);
    return 1;
  }
}

}  // namespace
}  // namespace moeweld::app

int main(int argc, char** argv) {
  using namespace moeweld;
  app::settle_environment(argv);
  const bool launched = dist::started_by_launcher();
  app::Parsed parsed = app::parse_command_line(argc, argv);
  std::unique_ptr<dist::MpiSession> session;
  if (launched) session = std::make_unique<dist::MpiSession>(&argc, &argv);
  if (!parsed.options) {
    if (!launched || dist::make_mpi_peers()->rank() == 0) fmt::print(parsed.exit_code == 0 ? stdout : stderr, "{}", parsed.text);
    return parsed.exit_code;
  }
  parsed.options->baseline_resident_bytes = exec::resident_bytes();
  formats::set_hdf5_reader(hdf5::read_hdf5_header);
  app::watch_signals();
  return app::run(*parsed.options, launched);
}
