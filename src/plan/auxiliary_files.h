#pragma once
/// What else a model directory holds, and what becomes of it.

#include <optional>
#include <string>
#include <vector>

#include "moeweld/formats/checkpoint.h"
#include "moeweld/plan/merge_plan.h"
#include "moeweld/plan/planner.h"
#include "moeweld/storage/storage.h"

namespace moeweld::plan {

/// Every other file of `base`: copied, or named as dropped with the reason. Tokenizer files come from `tokenizer` (usually the base itself)
/// and only with options.copy_tokenizer; .py files only with options.trust_remote_code.
std::vector<AuxiliaryFile> auxiliary_files(const formats::Checkpoint& base, const formats::Checkpoint& tokenizer,
                                           const PlanOptions& options);

/// Notes a tokenizer class in a copied tokenizer_config.json that some of today's readers do not know.
void note_tokenizer_class(Storage& storage, const std::vector<AuxiliaryFile>& files, std::vector<std::string>& notes);

/// Puts the chat template that `chat_template:` asks for into the files: chat_template.jinja, and tokenizer_config.json for older readers.
/// "auto": the most frequent template among `models`, the first named of equally frequent ones. Throws Error(kUnsupported or
/// kInvalidConfig) with the line for a name that is not known.
void set_chat_template(Storage& storage, const std::string& chat_template, int line, const std::string& config_path,
                       const std::vector<const formats::Checkpoint*>& models, std::vector<AuxiliaryFile>& files,
                       std::vector<std::string>& notes);

}  // namespace moeweld::plan
