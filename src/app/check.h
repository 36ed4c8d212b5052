#pragma once
/// What `check` reads and says.

#include <optional>
#include <string>
#include <vector>

#include "moeweld/infer/forward.h"
#include "moeweld/model/transformer.h"

namespace moeweld::app {

/// Logits that are NaN or infinite.
constexpr int kNotFiniteExitCode = 10;

/// One JSON list of token ids in each line that is not empty. Throws Error(kInvalidInput) with path and line.
std::vector<infer::TokenIds> parse_token_ids(const std::string& text, const std::string& path);

struct CheckSummary {
  bool is_finite = true;
  std::uint64_t num_scored = 0;      ///< tokens 2..n of all sequences
  double log_likelihood = 0;         ///< their sum, natural logarithm
  std::optional<double> perplexity;  ///< exp of the mean negative log-likelihood; nothing where no token was scored or it is no number
};
CheckSummary summarise(const infer::ForwardReport& report);

struct CheckFacts {
  std::string model;
  std::uint64_t peak_memory_bytes = 0;
  bool is_probe = false;  ///< on ids of our own
};
std::string check_text(const model::Transformer& model, const infer::ForwardReport& report, const CheckSummary& summary,
                       const CheckFacts& facts);
std::string check_json(const model::Transformer& model, const std::vector<infer::TokenIds>& sequences, const infer::ForwardReport& report,
                       const CheckSummary& summary, const CheckFacts& facts);

}  // namespace moeweld::app
