#include "support/simulation.h"

#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string_view>

#include "exec/journal.h"
#include "exec/publish.h"
#include "moeweld/exec/execute.h"
#include "moeweld/exec/manifest.h"
#include "support/simulated_storage.h"
#include "support/simulated_world.h"
#include "support/synthetic_plan.h"

namespace moeweld::testing_support {

namespace {

/// Where expected_files() has no word for copies.
plan::MergePlan with_copies_passed_through(plan::MergePlan plan) {
  for (plan::Operation& operation : plan.operations) {
    if (operation.kind != plan::Operation::Kind::kCopy) continue;
    operation.method = static_cast<std::uint32_t>(merge::find_method("passthrough") - merge::method_table().data());
    operation.task.parameters.clear();
    operation.task.base_index = -1;
    operation.task.inputs = {{operation.sources[0].dtype, {std::numeric_limits<double>::quiet_NaN()}}};
  }
  return plan;
}

/// The simulated files have no times.
void take_inputs(plan::MergePlan& plan, SimulatedWork& work) {
  for (plan::PlannedInputFile& file : plan.input_files) {
    std::string& content = work.inputs[file.path];
    if (content.empty()) content = read_file(file.path);
    file.identity.modified_ns = 0;
  }
}

/// Little is measured, across the border of two digest chunks; the rest, a few MiB so that there are several chunks, is copied: lives are
/// short.
plan::MergePlan make_measured_plan(const std::string& directory, const std::string& method,
                                   const std::vector<std::pair<std::string, double>>& parameters) {
  std::filesystem::create_directories(directory);
  plan::MergePlan plan = make_synthetic_plan(directory,
                                             {{"first", {490, 1031}, DType::kBF16},
                                              {"measured", {32, 1031}, DType::kBF16},
                                              {"rest", {600, 601}, DType::kBF16},
                                              {"small", {7}, DType::kF32},
                                              {"last", {600, 1031}, DType::kBF16}},
                                             method, 2, true, parameters, 3);
  for (const std::size_t index : {std::size_t{0}, std::size_t{2}, std::size_t{4}}) {
    plan.operations[index].kind = plan::Operation::Kind::kCopy;
    plan.operations[index].sources.resize(1);
  }
  return plan;
}

/// Two models: the first file is of both, the others of one each; the last holds router rows.
plan::MergePlan make_several_outputs_plan(const std::string& directory) {
  std::filesystem::create_directories(directory);
  plan::MergePlan plan = make_synthetic_plan(
      directory, {{"shared", {700, 1031}, DType::kBF16}, {"own", {300, 1031}, DType::kBF16}, {"router", {2, 8}, DType::kF32}}, "linear", 1,
      false, {{"weight", 1}}, 1);
  plan.outputs = {"left", "right"};
  plan.output_files[0].name = "left/shared.safetensors";
  plan.output_files[0].copies = {"right/shared.safetensors"};
  plan.output_files[1].name = "left/own.safetensors";
  plan.output_files[2].name = "right/own.safetensors";
  plan::Slot slot;
  slot.name = "router rows";
  slot.shape = {2, 8};
  slot.embedding = plan.operations[1].sources[0];
  slot.embedding.num_elements = 100 * 8;
  slot.embedding_shape = {100, 8};
  slot.positive_ids = {{{3, 7}, {9}}, {{1}}};
  plan.slots.push_back(slot);
  plan.operations[2].kind = plan::Operation::Kind::kSlot;
  plan.operations[2].sources.clear();
  for (const std::size_t index : {std::size_t{0}, std::size_t{1}}) plan.operations[index].kind = plan::Operation::Kind::kCopy;
  return plan;
}

enum class Fault : std::uint8_t { kNone, kIo, kDiskFull, kInputEnds };

bool is_hit_by(Fault fault, std::string_view operation) {
  switch (fault) {
    case Fault::kNone:
      return false;
    case Fault::kIo:  // a question about a file is answered
      return operation != "identity" && operation != "exists" && operation != "is_directory" && operation != "list";
    case Fault::kDiskFull:
      return operation == "write" || operation == "sync" || operation == "create_sized" || operation == "write_text" ||
             operation == "make_directories";
    case Fault::kInputEnds:
      return operation == "read";
  }
  return false;
}

ErrorCode code_of(Fault fault) {
  return fault == Fault::kDiskFull ? ErrorCode::kNoSpace : fault == Fault::kInputEnds ? ErrorCode::kInvalidInput : ErrorCode::kIo;
}

/// What is wrong with a directory that has the output's name; empty if nothing is.
std::string published_fault(SimulatedStorage& storage, const SimulatedWork::Merge& merge, const std::string& output) {
  for (std::size_t index = 0; index < merge.plan.output_files.size(); ++index) {
    const plan::PlannedOutputFile& file = merge.plan.output_files[index];
    std::vector<std::string> names = {file.name};
    names.insert(names.end(), file.copies.begin(), file.copies.end());
    for (const std::string& name : names) {
      if (!storage.has(output + "/" + name)) return "OUT lacks " + name;
      if (storage.bytes(output + "/" + name) != merge.expected[index]) return "other bytes in " + name;
    }
  }
  if (storage.has(output + "/journal")) return "OUT has a journal";
  std::vector<std::string> models;
  for (const std::string& name : merge.plan.outputs) models.push_back(output + "/" + name);
  if (models.empty()) models.push_back(output);
  for (const std::string& model : models) {
    if (!storage.has(model + "/model.safetensors.index.json")) return "OUT lacks its index";
    const exec::Manifest manifest = exec::parse_manifest(storage.read_text(model + "/" + exec::kManifestName, 1 << 20), "manifest");
    for (const exec::ManifestFile& file : manifest.files) {
      if (!file.name.ends_with(".safetensors")) continue;
      const std::string& bytes = storage.bytes(model + "/" + file.name);
      std::vector<Digest> chunks;
      for (std::size_t begin = 0; begin < bytes.size(); begin += kDigestChunkBytes) {
        chunks.push_back(
            digest_of(std::as_bytes(std::span(bytes)).subspan(begin, std::min<std::size_t>(kDigestChunkBytes, bytes.size() - begin))));
      }
      if (file.digest != "xxh3-128-1MiB:" + to_hex(digest_of_chunks(chunks))) return "the manifest's digest of " + file.name + " is wrong";
    }
  }
  return {};
}

}  // namespace

SimulatedWork make_simulated_work(const std::string& directory) {
  SimulatedWork work;
  const auto add_measured = [&](const std::string& method, const std::vector<std::pair<std::string, double>>& parameters) {
    SimulatedWork::Merge merge{method, make_measured_plan(directory + "/" + method, method, parameters), {}};
    merge.expected = expected_files(with_copies_passed_through(merge.plan));
    take_inputs(merge.plan, work);
    work.merges.push_back(std::move(merge));
  };
  add_measured("slerp", {{"t", 0.4}});
  add_measured("linear", {{"weight", 0.5}});
  add_merge("several", make_several_outputs_plan(directory + "/several"), directory, work);
  return work;
}

void add_merge(const std::string& name, plan::MergePlan plan, const std::string& directory, SimulatedWork& work) {
  const std::string output = directory + "/whole-" + name;
  exec::ExecuteOptions options;
  options.memory_limit_bytes = exec::minimum_memory_bytes(plan) + (std::uint64_t{64} << 20);
  const std::unique_ptr<Peers> alone = make_single_peer();
  exec::execute(*alone, *make_posix_storage(), plan, plan::make_schedule(plan, 1), output, options, {});
  SimulatedWork::Merge merge{name, std::move(plan), {}};
  for (const plan::PlannedOutputFile& file : merge.plan.output_files) merge.expected.push_back(read_file(output + "/" + file.name));
  take_inputs(merge.plan, work);
  work.merges.push_back(std::move(merge));
}

SimulatedLife simulate(const SimulatedWork& work, std::uint32_t seed) {
  std::mt19937 generator(seed);
  const SimulatedWork::Merge& merge = work.merges[generator() % work.merges.size()];
  const plan::MergePlan& plan = merge.plan;
  const std::string output = "/d/out";
  SimulatedStorage storage(work.inputs, static_cast<std::uint32_t>(generator()));
  storage.make_directories("/d");
  SimulatedLife life;
  const auto fail = [&](const std::string& what) {
    if (life.failure.empty()) {
      life.failure = "seed " + std::to_string(seed) + " (" + merge.name + "), attempt " + std::to_string(life.num_attempts) + ": " + what;
    }
  };

  exec::ExecuteOptions options;
  options.in_one_thread = true;
  options.resume = true;
  options.version = "simulated";
  options.memory_limit_bytes = exec::minimum_memory_bytes(plan) + (std::uint64_t{8} << 20);
  options.write_model_card = false;
  options.portion_bytes = kDigestChunkBytes;

  constexpr int kMostAttempts = 7;
  for (bool is_published = false; !is_published && life.failure.empty(); ++life.num_attempts) {
    const bool is_last = life.num_attempts + 1 == kMostAttempts;
    const int ranks = 1 + static_cast<int>(generator() % 3);
    // Either after every window, or only at the end: nothing in a life may depend on the clock.
    options.journal_interval = std::chrono::duration<double>(generator() % 4 == 0 ? 1e6 : 0);
    Kill kill;
    std::uint64_t fault_step = 0;
    Fault fault = Fault::kNone;
    if (!is_last) {
      const std::uint64_t step = 1 + generator() % static_cast<std::uint32_t>(20 + 30 * ranks);
      switch (generator() % 8) {
        case 0:
          fault = Fault::kIo;
          break;
        case 1:
          fault = Fault::kDiskFull;
          break;
        case 2:
          fault = Fault::kInputEnds;
          break;
        default:
          kill = {step, generator() % 2 == 0 ? 0 : generator() % 20};
      }
      fault_step = step;
    }
    storage.set_hook({});
    const std::optional<exec::JournalSummary> before = exec::read_journals(storage, exec::partial_directory(output));

    SimulatedWorld world(ranks, static_cast<std::uint32_t>(generator()), kill);
    bool had_fault = false;
    storage.set_hook([&](const char* operation, const std::string& path) {
      world.step(operation);
      if (had_fault || world.num_steps() < fault_step || !is_hit_by(fault, operation)) return;
      had_fault = true;
      throw Error(code_of(fault), "a simulated fault", path);
    });
    std::optional<exec::MergeReport> report;
    const std::vector<std::exception_ptr> failures = world.run([&](Peers& peers) {
      if (exec::is_published(peers, storage, plan, output, options)) return;
      const plan::Schedule schedule = plan::make_schedule(plan, peers.size());
      exec::preflight(peers, storage, plan, output, options);
      const exec::MergeReport mine = exec::execute(peers, storage, plan, schedule, output, options, {});
      if (peers.rank() == 0) report = mine;
    });
    storage.set_hook({});
    life.num_steps += world.num_steps();
    life.trace = life.trace * 31 + world.trace();
    if (world.was_killed()) ++life.num_kills;
    if (had_fault) ++life.num_faults;

    bool any_failed = false;
    for (const std::exception_ptr& failure : failures) {
      if (!failure) continue;
      any_failed = true;
      try {
        std::rethrow_exception(failure);
      } catch (const Deadlock&) {
        fail("a hang");
      } catch (const Killed&) {
        if (!world.was_killed()) fail("killed, and nobody did it");
      } catch (const Error& error) {
        const bool is_expected =
            (error.code() == ErrorCode::kPeerFailed && world.was_killed()) || (had_fault && error.code() == code_of(fault));
        if (!is_expected) fail(error.what());
      } catch (const std::exception& error) {
        fail(error.what());
      }
    }
    if (world.was_killed()) any_failed = true;  // perhaps after the last step that mattered
    if (is_last && any_failed) fail("an undisturbed attempt did not end");
    if (report && before) {
      std::uint64_t durable_bytes = 0;
      for (const exec::RunDigests& run : before->finished.finished())
        durable_bytes += (run.run.end - run.run.begin) * plan.output_files[run.run.file].num_places();
      if (report->resumed_bytes != durable_bytes) fail("finished work was not found again");
    }
    if (report && report->resumed_bytes + report->written_bytes != plan.output_bytes()) fail("work was done twice or not at all");
    if (report) {
      life.resumed_bytes += report->resumed_bytes;
      for (const exec::RankReport& rank : report->ranks) life.taken_bytes += rank.taken_bytes;
    }

    if (world.was_killed() && generator() % 2 == 0) {
      storage.lose_power();
      ++life.num_power_losses;
    }
    is_published = storage.has(output);
    if (is_published) {
      if (const std::string wrong = published_fault(storage, merge, output); !wrong.empty()) fail(wrong);
    } else if (!any_failed) {
      fail("it ended well without an output");
    }
  }
  return life;
}

}  // namespace moeweld::testing_support
