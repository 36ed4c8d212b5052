#include "app/check.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>

#include "moeweld/base/elementary.h"
#include "moeweld/base/error.h"
#include "moeweld/base/text.h"
#include "moeweld/formats/json.h"

namespace moeweld::app {

using formats::Json;

std::vector<infer::TokenIds> parse_token_ids(const std::string& text, const std::string& path) {
  std::vector<infer::TokenIds> sequences;
  ProblemList problems;
  int line = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string content = text.substr(begin, end - begin);
    begin = end + 1;
    ++line;
    if (content.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto problem = [&](std::string message) { problems.add({ErrorCode::kInvalidInput, std::move(message), path, line, {}}); };
    Json list;
    try {
      list = formats::parse_json(content, path);
    } catch (const Error& error) {
      problem(error.problems().front().message);
      continue;
    }
    bool is_list = list.is_array() && !list.empty();
    infer::TokenIds ids;
    for (std::size_t i = 0; is_list && i < list.size(); ++i) {
      is_list = list[i].is_number_integer() && (!list[i].is_number_unsigned() || list[i].get<std::uint64_t>() < (std::uint64_t{1} << 62));
      if (is_list) ids.push_back(list[i].get<std::int64_t>());
    }
    if (!is_list) {
      problem("a line must be a JSON list of token ids, such as [1, 15043, 3186], not " + printable(content, 60));
      continue;
    }
    sequences.push_back(std::move(ids));
  }
  if (sequences.empty() && problems.empty()) problems.add({ErrorCode::kInvalidInput, "holds no token ids", path, 0, {}});
  problems.throw_if_any();
  return sequences;
}

CheckSummary summarise(const infer::ForwardReport& report) {
  CheckSummary summary;
  for (const infer::SequenceResult& sequence : report.sequences) {
    summary.is_finite = summary.is_finite && sequence.is_finite;
    summary.num_scored += sequence.log_likelihoods.size();
    for (const double value : sequence.log_likelihoods) summary.log_likelihood += value;
  }
  if (summary.num_scored != 0 && std::isfinite(summary.log_likelihood)) {
    const double perplexity = exact_exp(-summary.log_likelihood / static_cast<double>(summary.num_scored));
    if (std::isfinite(perplexity)) summary.perplexity = perplexity;
  }
  return summary;
}

std::string check_text(const model::Transformer& model, const infer::ForwardReport& report, const CheckSummary& summary,
                       const CheckFacts& facts) {
  std::string text;
  const auto line = [&](std::string_view key, const std::string& value) { text += fmt::format("{:<14}{}\n", key, value); };
  line("model", facts.model);
  line("family", fmt::format("{}, {} layers of width {}, {}", model.family, model.layers.size(), model.hidden_size,
                             format_bytes(model.size_bytes())));
  line("input", fmt::format("{} tokens in {} {}", report.num_tokens, report.sequences.size(),
                            report.sequences.size() == 1 ? "sequence" : "sequences"));
  if (summary.is_finite) {
    line("logits", "all finite");
  } else {
    line("logits", report.first_non_finite_layer < 0
                       ? "NOT finite, though what all layers put out is: the final norm or the head is damaged"
                       : fmt::format("NOT finite: NaN or infinity first leaves layer {}", report.first_non_finite_layer));
  }
  if (summary.perplexity) {
    line("perplexity", fmt::format("{:.6g} over {} tokens", *summary.perplexity, summary.num_scored));
  } else {
    line("perplexity", summary.num_scored == 0 ? "none: no sequence has two tokens" : "none");
  }
  std::string next;
  constexpr std::size_t kMostShown = 10;
  for (std::size_t i = 0; i < report.sequences.size() && i < kMostShown; ++i) {
    const infer::SequenceResult& sequence = report.sequences[i];
    next += fmt::format("{}{} ({:.3f})", i == 0 ? "" : ", ", sequence.predictions.back(), sequence.prediction_probability);
  }
  if (report.sequences.size() > kMostShown) next += ", …";
  line("next token", next + (report.sequences.size() == 1 ? "" : "   (one for each sequence, with its probability)"));
  if (facts.is_probe)
    line("note", "the ids are arbitrary ones: they show whether logits are finite; give a text for a perplexity that means something");
  for (const std::string& note : model.notes) line("note", note);
  line("took", fmt::format("{}, {} read in {} {}, {} of memory, OpenBLAS for {}", format_duration(report.seconds),
                           format_bytes(report.read_bytes), report.num_passes, report.num_passes == 1 ? "pass" : "passes",
                           format_memory(facts.peak_memory_bytes), report.blas_core));
  return text;
}

std::string check_json(const model::Transformer& model, const std::vector<infer::TokenIds>& sequences, const infer::ForwardReport& report,
                       const CheckSummary& summary, const CheckFacts& facts) {
  Json json;
  json["schema"] = "moeweld.check/1";
  json["model"] = facts.model;
  json["family"] = model.family;
  json["finite"] = summary.is_finite;
  json["first_non_finite_layer"] = report.first_non_finite_layer < 0 ? Json(nullptr) : Json(report.first_non_finite_layer);
  json["perplexity"] = summary.perplexity ? Json(*summary.perplexity) : Json(nullptr);
  json["scored_tokens"] = summary.num_scored;
  json["log_likelihood"] = std::isfinite(summary.log_likelihood) ? Json(summary.log_likelihood) : Json(nullptr);
  json["ids"] = sequences;
  for (const char* key : {"next_tokens", "next_token_probabilities", "predictions"}) json[key] = Json::array();
  for (const infer::SequenceResult& sequence : report.sequences) {
    json["next_tokens"].push_back(sequence.predictions.back());
    json["next_token_probabilities"].push_back(sequence.prediction_probability);
    json["predictions"].push_back(sequence.predictions);
    if (!sequence.last_logits.empty()) json["last_logits"].push_back(sequence.last_logits);
  }
  json["notes"] = model.notes;
  json["tokens"] = report.num_tokens;
  json["passes"] = report.num_passes;
  json["read_bytes"] = report.read_bytes;
  json["seconds"] = report.seconds;
  json["peak_memory_bytes"] = facts.peak_memory_bytes;
  json["blas_core"] = report.blas_core;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace moeweld::app
