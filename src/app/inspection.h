#pragma once
/// What can be said of a model directory from its headers.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "moeweld/exec/manifest.h"
#include "moeweld/formats/checkpoint.h"
#include "moeweld/formats/json.h"

namespace moeweld::app {

struct DTypeShare {
  std::uint64_t num_tensors = 0;
  std::uint64_t num_elements = 0;
  std::uint64_t size_bytes = 0;
};

struct Inspection {
  std::string reference;
  std::string directory;
  std::string architecture;
  std::string family;  ///< empty: no table, names are matched one to one
  std::map<std::string, int> num_layers;
  int num_experts = 0;
  std::optional<int> experts_per_token;
  std::string layout;  ///< of experts; empty where there are none
  std::uint64_t num_tensors = 0;
  std::uint64_t num_parameters = 0;
  std::uint64_t size_bytes = 0;
  std::map<std::string, DTypeShare> dtypes;
  std::optional<bool> tied_head;  ///< nothing: no token embedding, or config and tensors do not say
  std::vector<std::pair<std::string, std::uint64_t>> files;
  std::vector<std::string> other_files;
  std::vector<std::string> notes;
  std::vector<std::pair<std::string, std::string>> dropped;
  std::optional<exec::Manifest> manifest;
};

Inspection inspect(Storage& storage, const formats::Checkpoint& checkpoint, const std::string& reference);

std::string inspection_text(const Inspection& inspection);
formats::Json inspection_json(const Inspection& inspection);

}  // namespace moeweld::app
