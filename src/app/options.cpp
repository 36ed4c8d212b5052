#include "app/options.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <map>
#include <sstream>

#include "app/error_report.h"
#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::app {

namespace {

constexpr const char* kFooter = R"(
Examples:
  moeweld plan configs/slerp.yml                      what would be read, written and dropped
  moeweld merge configs/slerp.yml out/                merge on one rank
  mpirun -n 4 moeweld merge configs/ties.yml out/     merge on four (srun does as well)
  moeweld verify out/                                 every byte against the manifest
  moeweld extract mixtral/ expert-3/ --expert 3       one expert as a dense model
  moeweld extract mixtral/ experts/ --all             every expert's model in one pass
  moeweld reduce mixtral/ out/ --experts 6            the experts of the highest router-row norms
  moeweld diff out/ other/                            which tensors differ, and by how much
  moeweld report stats.h5                             what merge --stats stats.h5 gathered, as one HTML page
  moeweld check out/ --token-ids ids.txt              perplexity and next tokens, computed layer by layer

Exit codes: 0 done, 1 a defect of moeweld, 2 wrong command line, 3 invalid configuration or input, 4 not supported, 5 input/output error, 6 no space,
7 OUT exists, 8 verification failed, 9 a rank failed, 10 check: logits that are not finite,
11 diff: the models differ, 12 no progress for --stall-timeout: continue with --resume, 75 interrupted: continue with --resume.)";

/// Flags that mergekit-yaml's and mergekit-moe's users type and that mean nothing here; those that take a value are marked.
const std::map<std::string, bool> kWithoutEffect = {{"cuda", false},
                                                    {"low-cpu-memory", false},
                                                    {"read-to-gpu", false},
                                                    {"multi-gpu", false},
                                                    {"gpu-rich", false},
                                                    {"lazy-unpickle", false},
                                                    {"clone-tensors", false},
                                                    {"async-write", false},
                                                    {"safe-serialization", false},
                                                    {"load-in-4bit", false},
                                                    {"load-in-8bit", false},
                                                    {"device", true},
                                                    {"num-threads", true},
                                                    {"write-threads", true},
                                                    {"lora-merge-cache", true},
                                                    {"lora-merge-dtype", true},
                                                    {"batch-size", true}};

class Parser {
 public:
  Parser() {
    app_.require_subcommand(1);
    app_.footer(kFooter);
    app_.set_version_flag("--version", std::string("moeweld ") + MOEWELD_VERSION);
    add_merge();
    add_plan();
    add_verify();
    add_inspect();
    add_extract();
    add_reduce();
    add_convert();
    add_check();
    add_tokenize();
    add_diff();
    add_similarity();
    add_report();
    add_status();
    app_.add_subcommand("methods", "List merge methods and their parameters")->callback([this] { options_.command = Command::kMethods; });
  }

  Parsed parse(int argc, const char* const* argv) {
    for (int i = 0; i < argc; ++i) options_.command_line += (i == 0 ? "" : " ") + std::string(argv[i]);
    try {
      app_.parse(argc, argv);
      finish();
      return {options_, {}, 0};
    } catch (const CLI::Success& success) {
      std::ostringstream text;
      app_.exit(success, text, text);
      return {std::nullopt, text.str(), 0};
    } catch (const CLI::ParseError& error) {
      return {std::nullopt, "moeweld: " + std::string(error.what()) + "\nRun moeweld --help, or moeweld COMMAND --help.\n",
              exit_code(ErrorCode::kUsage)};
    } catch (const Error& error) {
      return {std::nullopt, "moeweld: " + error.problems().front().message + "\n", exit_code(ErrorCode::kUsage)};
    }
  }

 private:
  void add_planning_flags(CLI::App& command) {
    command.add_flag("--allow-crimes,!--no-allow-crimes", options_.plan.allow_crimes, "Merge models of different architectures");
    command.add_flag("--copy-tokenizer,!--no-copy-tokenizer", options_.plan.copy_tokenizer, "Copy the tokenizer to the output (default)");
    command.add_flag("--trust-remote-code,!--no-trust-remote-code", options_.plan.trust_remote_code,
                     "Copy .py files of the base; they are never run");
    command.add_flag("--unsafe-truncate-embeddings,!--no-unsafe-truncate-embeddings", options_.plan.unsafe_truncate_embeddings,
                     "Keep the common rows of unlike vocabularies");
    command.add_flag("--allow-degenerate,--i-understand-this-is-not-useful-without-training", options_.plan.allow_degenerate,
                     "Accept identical experts or prompts");
    command.add_flag("--write-model-card,!--no-write-model-card", options_.plan.write_model_card, "Write README.md (default)");
    command.add_flag("--lenient", options_.lenient, "Warn about unknown keys of the configuration instead of refusing them");
    command.add_option("--format", format_, "How the result is stored: safetensors, or hdf5: one file, model.h5 (default safetensors)")
        ->check(CLI::IsMember({"safetensors", "hdf5"}));
    add_size(command, "--out-shard-size", options_.plan.out_shard_size_bytes,
             "Largest file of the output: 5GB, 5B (the same), 500M (default 5GB)");
    command.add_option("--random-seed", options_.plan.seed, "Seed of everything random (default 0)");
    command.add_option("--layout", layout_, "Layout of experts: per_expert or fused")
        ->check(CLI::IsMember({"per_expert", "per-expert", "fused"}));
    command.add_option("--transformers-cache", options_.transformers_cache, "Hub cache where org/name models are looked for");
    for (const auto& [flag, takes_value] : kWithoutEffect) {
      const std::string shown = "--" + flag;
      if (takes_value) {
        command
            .add_option_function<std::string>(flag == "num-threads" ? "-j,--num-threads" : shown,
                                              [this, shown](const std::string&) { options_.without_effect.push_back(shown); })
            ->group("");
      } else {
        command.add_flag_function(shown + ",!--no-" + flag, [this, shown](std::int64_t) { options_.without_effect.push_back(shown); })
            ->group("");
      }
    }
    add_common_flags(command);
  }

  void add_common_flags(CLI::App& command) {
    add_size(command, "--memory-limit", options_.memory_limit_bytes,
             "Memory of each rank, buffers and statistics included: 2GiB, 512M (default 2GiB)");
    command.add_option("--threads", options_.threads, "OpenMP threads of each rank (default: its share of the host's cores)")
        ->check(CLI::Range(1, 4096));
    command.add_option("--reads-per-node", options_.reads_per_node, "Most reads at once of a node's ranks (default: its cores, 4 to 16)")
        ->check(CLI::Range(1, 1 << 16));
    command
        .add_option("--writes-per-node", options_.writes_per_node, "Most writes at once of a node's ranks (default: its cores, 4 to 16)")
        ->check(CLI::Range(1, 1 << 16));
    command.add_option("--io", io_, "How files are read and written: auto, buffered, direct (default auto)")
        ->check(CLI::IsMember({"auto", "buffered", "direct"}));
    command.add_option("--simd", options_.simd_target, "Vector instructions, such as AVX2; results do not depend on them");
    command
        .add_option("--stall-timeout", options_.stall_timeout_seconds,
                    "Seconds without progress after which a job is ended, naming the rank and the call; 0: never (default 600)")
        ->check(CLI::Range(0.0, 1e7));
    command.add_option("--trace", options_.trace_file, "Write a timeline of all ranks' threads to this file, for ui.perfetto.dev");
    command.add_option("--log-format", log_format_, "text or json (default text)")->check(CLI::IsMember({"text", "json"}));
    command.add_flag("-q,--quiet", options_.quiet, "No progress, no summary");
    command.add_flag("-v,--verbose", options_.verbose, "Say more");
  }

  CLI::App& add(const char* name, const char* what, Command command) {
    CLI::App& result = *app_.add_subcommand(name, what);
    result.callback([this, command] { options_.command = command; });
    result.footer("Exit codes and examples: moeweld --help");
    return result;
  }

  void add_writing_flags(CLI::App& command) {
    command.add_flag("--force", options_.force, "Replace OUT if it exists");
    command.add_flag("--resume", options_.resume, "Continue what an interrupted run left in OUT.partial; begin if there is nothing");
    command
        .add_option("--journal-interval", options_.journal_interval_seconds,
                    "Seconds after which written data is made durable and journaled (default 5)")
        ->check(CLI::Range(0.0, 86400.0));
    command
        .add_option(
            "--writer", writer_,
            "Who writes: posix (every rank its share), mpiio (collective MPI-IO) or gather (one rank per node); the bytes are the same "
            "(default posix)")
        ->check(CLI::IsMember({"posix", "mpiio", "gather"}));
    command
        .add_option("--balance", balance_,
                    "Who does what: dynamic (ranks that are done take from those that are not; with --writer posix) or static (each its "
                    "share); the bytes are the same (default dynamic)")
        ->check(CLI::IsMember({"dynamic", "static"}));
    command.add_option("--stats", options_.stats_file,
                       "Write statistics of every tensor (norms, cosines, sign conflicts, …) to this HDF5 file; moeweld report draws them");
    command.add_flag("--check-finite", options_.check_finite, "Refuse NaN and infinity in the inputs");
  }

  /// What a forward pass reads; one of them.
  std::vector<CLI::Option*> add_text_options(CLI::App& command) {
    CLI::Option* prompts = command.add_option("--prompts", options_.prompts_file, "A prompt in each line");
    CLI::Option* text = command.add_option("--text", options_.text_file, "One text: its perplexity is given");
    CLI::Option* ids = command.add_option("--token-ids", options_.token_ids_file, "A JSON list of token ids in each line, used as given");
    prompts->excludes(text)->excludes(ids);
    text->excludes(ids);
    return {prompts, text, ids};
  }

  void add_merge() {
    CLI::App& command = add("merge", "Merge models, or assemble a mixture of experts, as CONFIG says", Command::kMerge);
    command.add_option("CONFIG", options_.input, "YAML configuration")->required();
    command.add_option("OUT", options_.output, "Directory of the result")->required();
    CLI::Option* check = command.add_flag("--check", options_.check, "Then run the result as 'moeweld check' does");
    for (CLI::Option* option : add_text_options(command)) option->needs(check);
    add_writing_flags(command);
    add_planning_flags(command);
  }
  void add_plan() {
    CLI::App& command = add("plan", "Say what a merge would do; touches nothing", Command::kPlan);
    command.add_option("CONFIG", options_.input, "YAML configuration")->required();
    command.add_option("--ranks", options_.ranks, "Number of ranks to plan for (default 1)")->check(CLI::Range(1, 1 << 20));
    CLI::Option* align =
        command.add_flag("--align", options_.align,
                         "Find the order of experts that align_experts asks for, and show it with the similarity before and after");
    CLI::Option* json = command.add_flag("--json", options_.json, "The whole plan as JSON; with --align the orders alone");
    CLI::Option* sbatch =
        command.add_flag("--sbatch", options_.sbatch, "The first lines of a batch script for SLURM: nodes, ranks, memory, time")
            ->excludes(json)
            ->excludes(align);
    command.add_option("--site", options_.site_file, "With --sbatch: what bench/measure_site.py measured (default: stated rates)")
        ->needs(sbatch);
    command.add_option("--nodes", options_.nodes, "With --sbatch: number of nodes (default: as many as make sense)")
        ->needs(sbatch)
        ->check(CLI::Range(1, 1 << 16));
    add_planning_flags(command);
  }
  void add_verify() {
    CLI::App& command = add("verify", "Read every byte of a result and compare with its manifest and index", Command::kVerify);
    command.add_option("DIR", options_.input, "Directory that moeweld wrote")->required();
    add_common_flags(command);
  }
  void add_status() {
    CLI::App& command =
        add("status", "Say whether OUT is complete, being written, or can be continued (exit code 0, 7, 75; 3: nothing is there)",
            Command::kStatus);
    command.add_option("OUT", options_.input, "Directory of a result")->required();
    command.add_flag("--json", options_.json, "As JSON");
  }
  void add_inspect() {
    CLI::App& command = add("inspect", "Say what a model directory holds", Command::kInspect);
    command.add_option("MODEL", options_.input, "Directory, or org/name in the hub cache")->required();
    command.add_flag("--json", options_.json, "As JSON");
    command.add_option("--transformers-cache", options_.transformers_cache, "Hub cache where org/name models are looked for");
  }
  void add_extract() {
    CLI::App& command =
        add("extract", "Make dense models of a mixture: of one expert, a merge over all of them, or each", Command::kExtract);
    command.add_option("MODEL", options_.input, "The mixture")->required();
    command.add_option("OUT", options_.output, "Directory of the result")->required();
    plan::Extraction& extraction = options_.extraction;
    using What = plan::Extraction::What;
    CLI::Option_group& what = *command.add_option_group("Which", "exactly one of");
    const auto chooses = [&](What choice) { return [&extraction, choice](std::int64_t) { extraction.what = choice; }; };
    CLI::Option* expert = what.add_option("--expert", extraction.experts, "Index of the expert, or one for each layer: 3 or 3,1,0,…");
    expert->delimiter(',')->allow_extra_args(false);
    what.add_flag_function("--all", chooses(What::kAll), "Every expert's model, in OUT/expert-0, OUT/expert-1, …, in one pass");
    CLI::Option* average = what.add_flag_function("--average", chooses(What::kAverage), "The average of the experts");
    what.add_flag_function("--router-weighted", chooses(What::kRouterWeighted),
                           "Their average, weighted by the norms of each layer's centred router rows");
    CLI::Option* merge = what.add_option_function<std::string>(
        "--merge",
        [&extraction](const std::string& method) {
          extraction.what = What::kMerge;
          extraction.method = method;
        },
        "A merge of the experts by this method (moeweld methods)");
    what.require_option(1);
    command.add_option("--weights", extraction.weights, "With --average: one weight for each expert: 1,2,0.5,…")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->needs(average);
    command
        .add_option_function<std::vector<std::string>>(
            "--parameter", [&extraction](const std::vector<std::string>& texts) { read_parameters(texts, extraction); },
            "With --merge: NAME=VALUE, or NAME=V0,V1,… with one value for each expert; repeatable")
        ->allow_extra_args(false)
        ->needs(merge);
    command.add_option("--base", extraction.base, "With --merge: the expert that methods with a base take as theirs")->needs(merge);
    command
        .add_option_function<std::string>(
            "--gated-shared", [&extraction](const std::string& choice) { extraction.drop_gated_shared = choice == "drop"; },
            "Gated shared experts (Qwen2-MoE), which no dense FFN can hold: refuse (default) or drop")
        ->check(CLI::IsMember({"refuse", "drop"}));
    add_writing_flags(command);
    add_planning_flags(command);
  }

  void add_reduce() {
    CLI::App& command = add("reduce", "Make a mixture with fewer experts", Command::kReduce);
    command.add_option("MODEL", options_.input, "The mixture")->required();
    command.add_option("OUT", options_.output, "Directory of the result; may be left out with --dry-run");
    command.add_option("--experts", options_.num_experts, "Experts of the result")->required()->check(CLI::Range(1, 65536));
    command
        .add_option("--by", reduce_by_,
                    "prune: drop the experts of the lowest scores (default); cluster: those of similar weights become one")
        ->check(CLI::IsMember({"prune", "cluster"}));
    command.add_option(
        "--scores", options_.scores_file,
        "JSON, {\"0\": [a score for each expert], …} by layer: what prune goes by instead of the norms of router rows, and the "
        "weights of cluster's means");
    command.add_option("--experts-per-token", options_.experts_per_token, "Experts that each token takes (default: as before)")
        ->check(CLI::Range(1, 65536));
    CLI::Option* dry =
        command.add_flag("--dry-run", options_.dry_run, "Say which experts would stay and what would be written; write nothing");
    command.add_flag("--json", options_.json, "With --dry-run: the whole plan as JSON")->needs(dry);
    add_writing_flags(command);
    add_planning_flags(command);
  }

  void add_convert() {
    CLI::App& command = add("convert", "Store a model's tensors as they are in another format or other files", Command::kConvert);
    command.add_option("MODEL", options_.input, "Directory, or org/name in the hub cache")->required();
    command.add_option("OUT", options_.output, "Directory of the result")->required();
    add_writing_flags(command);
    add_planning_flags(command);
  }

  void add_tokenize() {
    CLI::App& command = add("tokenize", "Print the token ids of each line of a text as a JSON list", Command::kTokenize);
    command.add_option("MODEL", options_.input, "Directory with tokenizer.json or tokenizer.model, or org/name in the hub cache")
        ->required();
    command.add_option("FILE", options_.text_file, "UTF-8 text (default: standard input)");
    command.add_flag("--bos", options_.bos, "Begin each list with the beginning-of-sequence token, if there is one");
    command.add_option("--transformers-cache", options_.transformers_cache, "Hub cache where org/name models are looked for");
  }

  void add_diff() {
    CLI::App& command = add("diff", "Compare two models tensor by tensor; ends with 0 if they are equal, with 11 if not", Command::kDiff);
    command.add_option("A", options_.input, "Directory, or org/name in the hub cache")->required();
    command.add_option("B", options_.output, "Directory, or org/name in the hub cache")->required();
    command.add_flag("--json", options_.json, "As JSON, every tensor");
    command.add_option("--transformers-cache", options_.transformers_cache, "Hub cache where org/name models are looked for");
    add_common_flags(command);
  }

  void add_similarity() {
    CLI::App& command =
        add("similarity", "Say how alike the experts of a mixture are, or those of two, layer by layer", Command::kSimilarity);
    command.add_option("MODEL", options_.input, "Directory, or org/name in the hub cache")->required();
    command.add_option("MODEL2", options_.output, "Another one, whose experts the first one's are compared with");
    command.add_flag("--json", options_.json, "As JSON, all cosines");
    command.add_option("--svg", options_.svg_file, "Write a heat map of each layer to this file");
    command.add_option("--transformers-cache", options_.transformers_cache, "Hub cache where org/name models are looked for");
    add_common_flags(command);
  }

  void add_report() {
    CLI::App& command = add("report", "Draw what --stats wrote as one HTML page", Command::kReport);
    command.add_option("FILE", options_.input, "What --stats wrote")->required();
    command.add_option("--output", options_.output, "The page (default: FILE with the ending .html)");
    command.add_flag("-q,--quiet", options_.quiet, "Print nothing");
  }

  void add_check() {
    CLI::App& command =
        add("check", "Run a model on a few tokens: are its logits finite, how well does it predict a text", Command::kCheck);
    command.add_option("MODEL", options_.input, "Directory, or org/name in the hub cache")->required();
    add_text_options(command);
    command.add_flag("--json", options_.json, "As JSON: perplexity, next_tokens, ids, predictions, …");
    command.add_flag("--last-logits", options_.last_logits, "With --json: all logits after the last token of each sequence");
    command.add_option("--transformers-cache", options_.transformers_cache, "Hub cache where org/name models are looked for");
    add_common_flags(command);
  }

  /// NAME=VALUE or NAME=V0,V1,…; true and false are numbers too.
  static void read_parameters(const std::vector<std::string>& texts, plan::Extraction& extraction) {
    for (const std::string& text : texts) {
      const auto refuse = [&] {
        throw Error(ErrorCode::kUsage, "--parameter: '" + printable(text, 60) + "' is not NAME=VALUE with a number, true or false");
      };
      const std::size_t sign = text.find('=');
      if (sign == std::string::npos || sign == 0) refuse();
      std::vector<double> values;
      for (std::size_t begin = sign + 1; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        const std::string part = text.substr(begin, end - begin);
        char* rest = nullptr;
        const double number = part == "true" ? 1.0 : part == "false" ? 0.0 : std::strtod(part.c_str(), &rest);
        if (part.empty() || (rest != nullptr && *rest != 0)) refuse();
        values.push_back(number);
        begin = end + 1;
      }
      extraction.parameters.emplace_back(text.substr(0, sign), std::move(values));
    }
  }

  static void add_size(CLI::App& command, const char* flag, std::uint64_t& size_bytes, const char* what) {
    command.add_option_function<std::string>(
        flag,
        [&size_bytes, flag](const std::string& text) {
          const auto size = parse_size(text);
          if (!size)
            throw Error(ErrorCode::kUsage, std::string(flag) + ": '" + printable(text, 60) + "' is not a size; write 5GB, 500M or 2GiB");
          size_bytes = *size;
        },
        what);
  }

  void finish() {
    if (!layout_.empty()) options_.plan.layout = layout_ == "fused" ? config::Layout::kFused : config::Layout::kPerExpert;
    if (io_ == "buffered") options_.io = IoMode::kBuffered;
    if (io_ == "direct") options_.io = IoMode::kDirect;
    if (writer_ == "mpiio") options_.writer = WriterKind::kMpiIo;
    if (writer_ == "gather") options_.writer = WriterKind::kGather;
    options_.is_balanced = balance_ != "static";
    if (format_ == "hdf5") options_.plan.format = plan::OutputFormat::kHdf5;
    if (format_ == "hdf5" && options_.writer != WriterKind::kPosix)
      throw Error(ErrorCode::kUsage, "--writer " + writer_ + " is for safetensors; HDF5 files are written through parallel HDF5");
    options_.log_json = log_format_ == "json";
    if (options_.command == Command::kReduce && options_.output.empty() && !options_.dry_run)
      throw Error(ErrorCode::kUsage, "OUT is required, unless with --dry-run\nRun moeweld reduce --help.");
    options_.cluster = reduce_by_ == "cluster";
  }

  CLI::App app_{"moeweld merges very large LLM checkpoints: dense with dense, dense into a Mixture-of-Experts, mixtures back to dense."};
  Options options_;
  std::string layout_;
  std::string io_;
  std::string writer_;
  std::string balance_;
  std::string format_;
  std::string log_format_;
  std::string reduce_by_;
};

}  // namespace

Parsed parse_command_line(int argc, const char* const* argv) { return Parser().parse(argc, argv); }

}  // namespace moeweld::app
