#pragma once
/// What the command line says.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "moeweld/plan/extraction.h"
#include "moeweld/plan/planner.h"
#include "moeweld/storage/storage.h"

namespace moeweld::app {

/// Who writes the output.
enum class WriterKind : std::uint8_t { kPosix, kMpiIo, kGather };

enum class Command : std::uint8_t {
  kMerge,
  kPlan,
  kVerify,
  kInspect,
  kExtract,
  kReduce,
  kMethods,
  kCheck,
  kStatus,
  kTokenize,
  kDiff,
  kSimilarity,
  kConvert,
  kReport
};

struct Options {
  Command command = Command::kMerge;
  std::string input;   ///< CONFIG, MODEL or DIR; A of diff
  std::string output;  ///< OUT; B of diff; the page of report, empty: beside its input
  bool bos = false;    ///< tokenize --bos
  plan::Extraction extraction;
  int num_experts = 0;        ///< reduce --experts
  bool cluster = false;       ///< reduce --by cluster
  std::string scores_file;    ///< reduce --scores
  int experts_per_token = 0;  ///< reduce --experts-per-token; 0: the model's
  bool dry_run = false;       ///< reduce --dry-run: OUT may be empty
  plan::PlanOptions plan;
  std::string transformers_cache;  ///< where models are looked for, instead of the environment's hub cache
  bool lenient = false;
  std::string prompts_file;    ///< check --prompts
  std::string text_file;       ///< check --text; FILE of tokenize, empty: standard input
  std::string token_ids_file;  ///< check --token-ids
  bool last_logits = false;    ///< check --last-logits
  bool sbatch = false;         ///< plan --sbatch
  std::string site_file;       ///< plan --site
  int nodes = 0;               ///< plan --nodes; 0: as many as make sense
  int ranks = 0;               ///< plan --ranks; 0: one
  std::string svg_file;        ///< similarity --svg
  bool align = false;          ///< plan --align
  bool json = false;
  bool log_json = false;
  bool quiet = false;
  bool verbose = false;
  bool force = false;
  bool resume = false;
  double journal_interval_seconds = 5;
  double stall_timeout_seconds = 600;  ///< 0: no watchdog
  bool check_finite = false;
  bool check = false;  ///< merge --check
  std::uint64_t memory_limit_bytes = std::uint64_t{2} << 30;
  int threads = 0;         ///< 0: this rank's share of the host's cores
  int reads_per_node = 0;  ///< 0: chosen by choose_io_limits
  int writes_per_node = 0;
  IoMode io = IoMode::kAuto;
  WriterKind writer = WriterKind::kPosix;
  bool is_balanced = true;  ///< --balance dynamic
  std::string simd_target;
  std::string stats_file;                   ///< --stats; empty: none
  std::string trace_file;                   ///< empty: none
  std::vector<std::string> without_effect;  ///< flags of mergekit that mean nothing here
  std::string command_line;
  std::uint64_t baseline_resident_bytes = 0;  ///< resident set after MPI_Init: not moeweld's own
};

/// What parse_command_line decides without running anything.
struct Parsed {
  std::optional<Options> options;
  std::string text;   ///< help, version or the error to print
  int exit_code = 0;  ///< when there are no options
};

Parsed parse_command_line(int argc, const char* const* argv);

}  // namespace moeweld::app
