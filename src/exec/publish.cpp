#include "exec/publish.h"

#include <algorithm>
#include <optional>

#include "exec/journal.h"
#include "exec/model_card.h"
#include "moeweld/base/checked.h"
#include "moeweld/exec/manifest.h"
#include "moeweld/formats/shard_index.h"

namespace moeweld::exec {

namespace {

/// Files copied whole through memory: tokenizers, not weights.
constexpr std::uint64_t kLargestAuxiliaryBytes = kGiB;

std::string digest_text(std::string_view content) {
  std::vector<Digest> chunks;
  const std::span<const std::byte> bytes = std::as_bytes(std::span(content));
  for (std::size_t begin = 0; begin < bytes.size(); begin += kDigestChunkBytes) {
    chunks.push_back(digest_of(bytes.subspan(begin, std::min<std::size_t>(kDigestChunkBytes, bytes.size() - begin))));
  }
  return "xxh3-128-1MiB:" + to_hex(digest_of_chunks(chunks));
}

class PartialDirectory {
 public:
  PartialDirectory(Storage& storage, std::string directory) : storage_(storage), directory_(std::move(directory)) {}

  void write(const std::string& name, const std::string& content) {
    storage_.write_text(directory_ + "/" + name, content);
    files_.push_back({name, content.size(), digest_text(content)});
  }
  void add(ManifestFile file) { files_.push_back(std::move(file)); }
  std::vector<ManifestFile> take() {
    std::sort(files_.begin(), files_.end(), [](const ManifestFile& a, const ManifestFile& b) { return a.name < b.name; });
    return std::move(files_);
  }

 private:
  Storage& storage_;
  const std::string directory_;
  std::vector<ManifestFile> files_;
};

Manifest make_manifest(const plan::MergePlan& plan, const ExecuteOptions& options, const ComputedWith& with,
                       std::vector<ManifestFile> files) {
  Manifest manifest;
  manifest.version = options.version;
  manifest.config = plan.config_text;
  manifest.command_line = options.command_line;
  manifest.seed = plan.seed;
  manifest.plan_digest = to_hex(plan::identity_digest(plan));
  manifest.outputs = plan.outputs;
  manifest.composition = plan.composition;
  manifest.simd_targets = with.simd_targets;
  manifest.blas_core = with.blas_core;
  for (const plan::PlannedInputFile& file : plan.input_files) {
    manifest.inputs.push_back({plan.models[file.model].reference, file.path, file.identity.size_bytes, file.identity.modified_ns});
  }
  if (with.expert_orders != nullptr) manifest.alignments = describe_orders(plan, *with.expert_orders);
  manifest.files = std::move(files);
  return manifest;
}

/// Name of the file in the model of directory `output` ("" is the only one); nothing where that model has not got it.
std::optional<std::string> name_in(const plan::PlannedOutputFile& file, const std::string& output) {
  if (output.empty()) return file.name;
  const std::string prefix = output + "/";
  if (file.name.starts_with(prefix)) return file.name.substr(prefix.size());
  for (const std::string& copy : file.copies) {
    if (copy.starts_with(prefix)) return copy.substr(prefix.size());
  }
  return std::nullopt;
}

/// Everything but the tensors of one model, the index last.
void complete_model(Storage& storage, const plan::MergePlan& plan, const std::string& output, std::span<const Digest> file_digests,
                    const ComputedWith& with, const std::string& partial, const ExecuteOptions& options) {
  const std::string model = output.empty() ? partial : partial + "/" + output;
  PartialDirectory directory(storage, model);
  std::vector<std::optional<std::string>> names;
  for (std::size_t i = 0; i < plan.output_files.size(); ++i) {
    names.push_back(name_in(plan.output_files[i], output));
    if (names[i]) directory.add({*names[i], plan.output_files[i].size_bytes, "xxh3-128-1MiB:" + to_hex(file_digests[i])});
  }
  for (const plan::AuxiliaryFile& file : plan.auxiliary_files) {
    switch (file.action) {
      case plan::AuxiliaryFile::Action::kWrite:
        directory.write(file.name, file.content);
        break;
      case plan::AuxiliaryFile::Action::kCopy:
        directory.write(file.name, storage.read_text(file.source, kLargestAuxiliaryBytes));
        break;
      case plan::AuxiliaryFile::Action::kDrop:
        break;
    }
  }
  formats::ShardIndex index;
  std::uint64_t tensor_bytes = 0;
  for (const plan::PlannedTensor& tensor : plan.tensors) {
    if (!names[tensor.file]) continue;
    index.weight_map[tensor.name] = *names[tensor.file];
    tensor_bytes += tensor.size_bytes;
  }
  const std::string index_text = formats::serialize_shard_index(index, tensor_bytes);
  if (has_index(plan)) directory.add({kIndexName, index_text.size(), digest_text(index_text)});

  if (options.write_model_card) storage.write_text(model + "/README.md", model_card(plan, output, options.version));
  storage.write_text(model + "/" + kManifestName, serialize_manifest(make_manifest(plan, options, with, directory.take())));
  if (has_index(plan)) storage.write_text(model + "/" + kIndexName, index_text);
  storage.sync_directory(model);
}

}  // namespace

std::string plain_directory(const std::string& output_directory) {
  std::string result = output_directory;
  while (result.size() > 1 && result.back() == '/') result.pop_back();
  return result;
}

std::string partial_directory(const std::string& output_directory) { return plain_directory(output_directory) + ".partial"; }

std::vector<Digest> combine_digests(const plan::MergePlan& plan, std::span<const RunDigests> runs) {
  std::vector<std::vector<Digest>> chunks(plan.output_files.size());
  std::vector<std::uint64_t> counts(plan.output_files.size());
  for (std::size_t file = 0; file < chunks.size(); ++file) {
    chunks[file].resize(round_up(plan.output_files[file].size_bytes, kDigestChunkBytes) / kDigestChunkBytes);
  }
  for (const RunDigests& run : runs) {
    const std::uint64_t first = run.run.begin / kDigestChunkBytes;
    std::vector<Digest>& target = chunks.at(run.run.file);
    if (first + run.digests.size() > target.size()) throw Error(ErrorCode::kInternal, "a rank reports more chunks than its file has");
    std::copy(run.digests.begin(), run.digests.end(), target.begin() + static_cast<std::ptrdiff_t>(first));
    counts[run.run.file] += run.digests.size();
  }
  std::vector<Digest> result;
  for (std::size_t file = 0; file < chunks.size(); ++file) {
    if (counts[file] != chunks[file].size()) {
      throw Error(ErrorCode::kInternal,
                  "ranks wrote " + std::to_string(counts[file]) + " chunks of a file that has " + std::to_string(chunks[file].size()),
                  plan.output_files[file].name);
    }
    result.push_back(digest_of_chunks(chunks[file]));
  }
  return result;
}

bool has_index(const plan::MergePlan& plan) { return plan.output_files.empty() || plan.output_files[0].own_metadata_bytes == 0; }

void digest_own_metadata(Storage& storage, const plan::MergePlan& plan, const std::string& directory, std::span<RunDigests> runs) {
  AlignedBuffer buffer(kDigestChunkBytes);
  for (RunDigests& run : runs) {
    const plan::PlannedOutputFile& file = plan.output_files[run.run.file];
    if (run.run.begin >= file.own_metadata_bytes) continue;
    const auto input = storage.open_input(directory + "/" + file.name, IoMode::kBuffered);
    for (std::size_t i = 0; i < run.digests.size(); ++i) {
      const std::uint64_t begin = run.run.begin + i * kDigestChunkBytes;
      if (begin >= file.own_metadata_bytes) break;
      const std::span<std::byte> chunk = buffer.span().first(std::min(kDigestChunkBytes, file.size_bytes - begin));
      input->read(begin, chunk);
      run.digests[i] = digest_of(chunk);
    }
  }
}

void publish(Storage& storage, const plan::MergePlan& plan, std::span<const Digest> file_digests, const ComputedWith& with,
             const std::string& output_directory, const ExecuteOptions& options) {
  const std::string output = plain_directory(output_directory);
  const std::string partial = partial_directory(output_directory);
  if (plan.outputs.empty()) complete_model(storage, plan, {}, file_digests, with, partial, options);
  for (const std::string& directory : plan.outputs) complete_model(storage, plan, directory, file_digests, with, partial, options);
  if (!plan.outputs.empty()) storage.sync_directory(partial);

  // From here on the index says that all is there; a run that dies now is given its name by the next one (exec/restart.h).
  storage.remove_all(journal_directory(partial));
  storage.sync_directory(partial);
  give_name(storage, output, options.force);
}

void give_name(Storage& storage, const std::string& output, bool force) {
  const std::string aside = output + ".replaced";
  if (force && storage.exists(output)) {
    storage.remove_all(aside);
    storage.rename(output, aside);
  }
  storage.rename(partial_directory(output), output);
  if (force) storage.remove_all(aside);
}

}  // namespace moeweld::exec
