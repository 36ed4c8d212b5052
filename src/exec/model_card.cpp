#include "exec/model_card.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <vector>

#include "moeweld/base/text.h"
#include "moeweld/merge/method.h"

namespace moeweld::exec {

namespace {

/// A YAML scalar in double quotes, so that no name from a config can end it.
std::string quoted_text(std::string_view text) {
  std::string result = "\"";
  for (const char character : printable(text, 1000)) {
    if (character == '"' || character == '\\') result += '\\';
    result += character;
  }
  return result + '"';
}

/// Markdown's inline code ends at a run of back quotes as long as the one that opens it.
std::string code_fence(std::string_view text, std::size_t at_least) {
  std::size_t longest = 0;
  std::size_t run = 0;
  for (const char character : text) {
    run = character == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  return std::string(std::max(at_least, longest + 1), '`');
}

std::string inline_code(std::string_view text) {
  const std::string safe = printable(text, 1000);
  const std::string fence = code_fence(safe, 1);
  const std::string_view space = fence.size() > 1 ? " " : "";
  return fence + std::string(space) + safe + std::string(space) + fence;
}

std::vector<std::string> method_lines(const plan::MergePlan& plan) {
  std::set<std::uint32_t> methods;
  bool has_random = false;
  for (const plan::Operation& operation : plan.operations) {
    if (operation.kind == plan::Operation::Kind::kMerge) methods.insert(operation.method);
    has_random = has_random || operation.kind == plan::Operation::Kind::kRandomFill;
  }
  std::vector<std::string> lines;
  const auto table = merge::method_table();
  for (const std::uint32_t index : methods) {
    if (index >= table.size()) continue;
    const merge::MethodRow& method = table[index];
    std::string line = inline_code(method.name) + ": " + std::string(method.title);
    if (!method.reference.empty()) line += " (" + std::string(method.reference) + ")";
    lines.push_back(std::move(line));
  }
  for (const plan::Slot& slot : plan.slots) lines.push_back(printable(slot.name));
  if (has_random) lines.push_back("random router rows");
  return lines;
}

}  // namespace

std::string model_card(const plan::MergePlan& plan, const std::string& output, const std::string& version) {
  std::string card = "---\n";
  if (!plan.base_models.empty()) {
    card += "base_model:\n";
    for (const std::string& model : plan.base_models) card += "- " + quoted_text(model) + "\n";
  }
  card += "library_name: transformers\ntags:\n- moeweld\n- merge\n---\n";
  card += "# " + (output.empty() ? "" : printable(output) + ": ") + printable(plan.title) + "\n\n";
  card += "Merged from existing models by moeweld " + version + ", without training.\n\n";
  for (const std::string& paragraph : plan.about) card += printable(paragraph, 2000) + "\n\n";
  card += "## Models\n\n";
  for (const plan::PlannedModel& model : plan.models) card += "- " + inline_code(model.reference) + "\n";
  if (!plan.composition.empty()) {
    card += "\n## What comes from where\n\n";
    for (const std::string& line : plan.composition) card += "- " + inline_code(line) + "\n";
  }
  const std::vector<std::string> methods = method_lines(plan);
  if (!methods.empty()) {
    card += "\n## Methods\n\n";
    for (const std::string& line : methods) card += "- " + line + "\n";
  }
  if (!plan.config_text.empty()) {
    const std::string fence = code_fence(plan.config_text, 3);
    card += "\n## Configuration\n\n" + fence + "yaml\n" + plan.config_text;
    if (!plan.config_text.ends_with('\n')) card += '\n';
    card += fence + "\n";
  }
  card += "\nRandom seed: " + std::to_string(plan.seed) +
          ". The same inputs, configuration and seed give the same bytes on any number of processes. `moeweld_manifest.json` holds the "
          "digests\n"
          "of all files; `moeweld verify` checks them.\n";
  return card;
}

}  // namespace moeweld::exec
