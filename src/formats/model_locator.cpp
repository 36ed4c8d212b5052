#include "moeweld/formats/model_locator.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <vector>

#include "moeweld/base/error.h"
#include "moeweld/base/text.h"

namespace moeweld::formats {
namespace {

constexpr std::size_t kMinPrefixDigits = 7;
constexpr std::uint64_t kMaxRefBytes = 1000;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0;;) {
    const std::size_t end = text.find(separator, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return parts;
    begin = end + 1;
  }
}

bool is_plain_part(std::string_view part) {
  return !part.empty() && part != "." && part != ".." && std::all_of(part.begin(), part.end(), [](unsigned char letter) {
    return std::isalnum(letter) != 0 || letter == '-' || letter == '_' || letter == '.' || letter == '+';
  });
}

// "org/name" or "name", as the hub allows it.
bool is_hub_name(std::string_view name) {
  const auto parts = split(name, '/');
  return parts.size() <= 2 && std::all_of(parts.begin(), parts.end(), is_plain_part);
}

bool is_revision_name(std::string_view revision) {
  const auto parts = split(revision, '/');
  return std::all_of(parts.begin(), parts.end(), is_plain_part);
}

bool is_commit_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char letter) { return std::isxdigit(letter) != 0; });
}

std::string trimmed(std::string text) {
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  return text;
}

/// One model's directory in the hub cache.
class CachedModel {
 public:
  CachedModel(Storage& storage, std::string directory) : storage_(storage), directory_(std::move(directory)) {}

  std::string locate(const std::string& name, const std::string& revision) {
    if (!is_revision_name(revision)) throw_not_found(name, revision, "That is not a name that a revision can have.");
    const std::string ref_path = directory_ + "/refs/" + revision;
    if (storage_.exists(ref_path) && !storage_.is_directory(ref_path)) {
      const std::string commit = trimmed(storage_.read_text(ref_path, kMaxRefBytes));
      if (!is_commit_digits(commit)) {
        throw Error(ErrorCode::kInvalidInput, "the file should hold a commit's digits, but holds '" + printable(commit, 60) + "'",
                    ref_path);
      }
      const std::string snapshot = snapshot_path(commit);
      if (storage_.is_directory(snapshot)) return snapshot;
      throw_not_found(name, revision, "It is commit " + commit + ", whose snapshot '" + snapshot + "' is not there.");
    }
    if (revision.find('/') == std::string::npos && storage_.is_directory(snapshot_path(revision))) return snapshot_path(revision);
    if (revision.size() >= kMinPrefixDigits && is_commit_digits(revision)) return by_prefix(name, revision);
    throw_not_found(name, revision, "");
  }

 private:
  std::string snapshot_path(const std::string& commit) const { return directory_ + "/snapshots/" + commit; }

  std::vector<std::string> commits() {
    std::vector<std::string> result;
    const std::string snapshots = directory_ + "/snapshots";
    if (!storage_.is_directory(snapshots)) return result;
    for (const DirectoryEntry& entry : storage_.list(snapshots)) {
      if (entry.is_directory) result.push_back(entry.name);
    }
    return result;
  }

  std::string by_prefix(const std::string& name, const std::string& prefix) {
    std::vector<std::string> fitting;
    for (const std::string& commit : commits()) {
      if (commit.compare(0, prefix.size(), prefix) == 0) fitting.push_back(commit);
    }
    if (fitting.size() == 1) return snapshot_path(fitting.front());
    throw_not_found(name, prefix, fitting.empty() ? "" : std::to_string(fitting.size()) + " commits begin with these digits; give more.");
  }

  void collect_refs(const std::string& below, const std::string& prefix, int depth, std::vector<std::string>& names) {
    if (!storage_.is_directory(below) || depth > 3) return;
    for (const DirectoryEntry& entry : storage_.list(below)) {
      if (entry.is_directory) {
        collect_refs(below + "/" + entry.name, prefix + entry.name + "/", depth + 1, names);
      } else {
        names.push_back(prefix + entry.name);
      }
    }
  }

  [[noreturn]] void throw_not_found(const std::string& name, const std::string& revision, const std::string& reason) {
    std::vector<std::string> known;
    collect_refs(directory_ + "/refs", "", 0, known);
    for (const std::string& commit : commits()) known.push_back(commit);
    std::string list;
    for (const std::string& one : known) list += (list.empty() ? "" : ", ") + printable(one, 100);
    throw Error(ErrorCode::kInvalidInput,
                "the hub cache has model '" + printable(name) + "', but not its revision '" + printable(revision) + "'. " +
                    (reason.empty() ? "" : reason + " ") + (list.empty() ? "It has none at all" : "It has " + list) +
                    "; download the revision first, moeweld never does",
                directory_);
  }

  Storage& storage_;
  std::string directory_;
};

}  // namespace

HubCacheEnvironment hub_cache_environment() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (std::string value = variable(name); !value.empty()) return {value};
  }
  if (const std::string home = variable("HF_HOME"); !home.empty()) return {home + "/hub"};
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) return {cache + "/huggingface/hub"};
  if (const std::string home = variable("HOME"); !home.empty()) return {home + "/.cache/huggingface/hub"};
  return {};
}

std::string locate_model(Storage& storage, const HubCacheEnvironment& environment, const std::string& name,
                         const std::optional<std::string>& revision) {
  if (name.empty()) throw Error(ErrorCode::kInvalidInput, "a model has an empty name");
  if (storage.is_directory(name)) {
    if (!revision) return name;
    throw Error(ErrorCode::kInvalidInput,
                "this is a directory, which has no revision '" + printable(*revision) + "'; leave the revision out", name);
  }
  std::string looked = "the directory '" + name + "'";
  if (is_hub_name(name) && !environment.hub_cache.empty()) {
    std::string folder = "models--" + name;
    if (const auto slash = folder.find('/'); slash != std::string::npos) folder.replace(slash, 1, "--");
    const std::string directory = environment.hub_cache + "/" + folder;
    if (storage.is_directory(directory)) return CachedModel(storage, directory).locate(name, revision.value_or("main"));
    looked += " and the hub cache's '" + directory + "'";
  } else if (is_hub_name(name)) {
    looked += "; there is no hub cache, since none of HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME is set";
  }
  throw Error(ErrorCode::kInvalidInput,
              "there is no model '" + printable(name) + "'. Looked at: " + looked + ". moeweld never downloads: give a directory" +
                  (is_hub_name(name) ? ", or download the model first (hf download " + printable(name) + ")" : ""));
}

}  // namespace moeweld::formats
