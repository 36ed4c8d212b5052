#include <fmt/format.h>

#include "app/interruption.h"
#include "app/run.h"
#include "moeweld/base/text.h"
#include "moeweld/plan/planner.h"
#include "moeweld/verify/diff.h"

namespace moeweld::app {

namespace {

using formats::Json;
using verify::DiffReport;
using verify::DiffSide;
using verify::TensorDiff;

constexpr int kModelsDiffer = 11;

Json describe(const DiffSide& side) { return {{"dtype", std::string(name(side.dtype))}, {"shape", side.shape}, {"path", side.path}}; }

Json to_json(const DiffReport& report, const Options& options) {
  Json json = {{"schema", "moeweld.diff/1"},    {"a", options.input},
               {"b", options.output},           {"equal", report.equal()},
               {"tensors", Json::array()},      {"only_in_a", report.only_in_a},
               {"only_in_b", report.only_in_b}, {"read_bytes", report.read_bytes},
               {"seconds", report.seconds}};
  for (const TensorDiff& tensor : report.tensors) {
    Json entry = {{"name", tensor.name}, {"equal", tensor.equal}, {"a", describe(tensor.a)}, {"b", describe(tensor.b)}};
    if (tensor.figures) {
      entry["elements"] = num_elements(tensor.a.shape);
      entry["different_elements"] = tensor.figures->different;
    }
    if (tensor.has_values) {
      entry["max_difference"] = tensor.figures->max_difference;
      entry["max_difference_at"] = tensor.figures->max_element;
      entry["non_finite_elements"] = tensor.figures->non_finite;
      const std::optional<double> cosine = tensor.figures->cosine();
      entry["cosine"] = cosine ? Json(*cosine) : Json(nullptr);
    }
    json["tensors"].push_back(std::move(entry));
  }
  return json;
}

std::string what_differs(const TensorDiff& tensor) {
  if (tensor.a.shape != tensor.b.shape) return fmt::format("shape {} and {}", to_string(tensor.a.shape), to_string(tensor.b.shape));
  std::string types;
  if (tensor.a.dtype != tensor.b.dtype) types = fmt::format(", {} and {}", name(tensor.a.dtype), name(tensor.b.dtype));
  if (!tensor.figures) return types.substr(2);
  const verify::DiffFigures& figures = *tensor.figures;
  const std::string count = fmt::format("{} of {} elements", figures.different, num_elements(tensor.a.shape));
  if (!tensor.has_values) return count + types;
  const std::optional<double> cosine = figures.cosine();
  std::string text = fmt::format("{}, at most by {:.6g}, cosine {}", count, figures.max_difference,
                                 cosine ? fmt::format("{:.9f}", *cosine) : "undefined: all zeros");
  if (figures.non_finite != 0) text += fmt::format(", {} not finite", figures.non_finite);
  return text + types;
}

void print_text(const DiffReport& report, const Options& options) {
  std::size_t num_equal = 0;
  std::size_t widest = 0;
  for (const TensorDiff& tensor : report.tensors) {
    num_equal += tensor.equal ? 1 : 0;
    if (!tensor.equal || options.verbose) widest = std::max(widest, tensor.name.size());
  }
  for (const TensorDiff& tensor : report.tensors) {
    if (tensor.equal && !options.verbose) continue;
    fmt::print("{:<{}}  {}\n", printable(tensor.name), widest, tensor.equal ? "equal" : what_differs(tensor));
  }
  for (const std::string& name : report.only_in_a) fmt::print("{}  only in {}\n", printable(name), options.input);
  for (const std::string& name : report.only_in_b) fmt::print("{}  only in {}\n", printable(name), options.output);
  if (options.quiet) return;
  const std::size_t only = report.only_in_a.size() + report.only_in_b.size();
  fmt::print("{} and {}: {} of {} tensors equal", options.input, options.output, num_equal, report.tensors.size());
  if (only != 0) fmt::print(", {} in one of the two only", only);
  fmt::print(" ({} read in {})\n", format_bytes(report.read_bytes), format_duration(report.seconds));
}

}  // namespace

int run_diff(Peers& peers, Storage& storage, const Options& options) {
  const auto pair = [&] {
    plan::ModelSource models(storage, hub_cache(options));
    ProblemList problems;
    const formats::Checkpoint* a = nullptr;
    const formats::Checkpoint* b = nullptr;
    problems.attempt([&] { a = &models.get(config::parse_model_reference(options.input)); });
    problems.attempt([&] { b = &models.get(config::parse_model_reference(options.output)); });
    problems.throw_if_any();
    return verify::pair_tensors(*a, *b);
  };
  const DiffReport report = verify::diff(peers, storage, pair, options.threads, [](std::uint64_t) { stop_if_interrupted(); });
  if (peers.rank() == 0) {
    if (options.json) {
      fmt::print("{}\n", to_json(report, options).dump(2, ' ', false, Json::error_handler_t::replace));
    } else {
      print_text(report, options);
    }
  }
  return report.equal() ? 0 : kModelsDiffer;
}

}  // namespace moeweld::app
