#include "moeweld/plan/job_estimate.h"

#include <gtest/gtest.h>

#include "moeweld/merge/method.h"
#include "moeweld/plan/site_rates.h"
#include "unit/expect_error.h"

namespace moeweld::plan {
namespace {

constexpr double kFixed = 20;
constexpr std::uint64_t kGigabyte = 1'000'000'000;

std::uint32_t method(std::string_view name) {
  for (std::uint32_t i = 0; i < merge::method_table().size(); ++i) {
    if (merge::method_table()[i].name == name) return i;
  }
  throw std::logic_error("no such method");
}

/// Two sources of `gigabytes` each, merged into as much.
MergePlan merge_of(double gigabytes, std::string_view name) {
  const auto bytes = static_cast<std::uint64_t>(gigabytes * kGigabyte);
  MergePlan plan;
  plan.output_files = {{.name = "model.safetensors", .header = "", .size_bytes = bytes}};
  Operation operation;
  operation.method = method(name);
  SourceView source;
  source.dtype = DType::kBF16;
  source.num_elements = bytes / 2;
  operation.sources = {source, source};
  plan.operations = {operation};
  return plan;
}

SiteRates rates() {
  SiteRates rates;
  rates.cores_per_node = 64;
  rates.memory_per_node_bytes = 256e9;
  rates.read_bytes_per_second = 2e9;
  rates.write_bytes_per_second = 1e9;
  rates.file_system_bytes_per_second = 12e9;
  rates.forward_flops_per_second_per_core = 10e9;
  rates.combine_bytes_per_second_per_core = 1e9;
  rates.combine_of = {{"slerp", 0.01e9}};
  return rates;
}

std::uint64_t two_gibibytes(int /*threads*/) { return std::uint64_t{2} << 30; }

TEST(JobEstimate, SlowestStageCounts) {
  const MergePlan plan = merge_of(100, "linear");  // 200 GB in, 100 GB out
  JobEstimate estimate = estimate_seconds(plan, rates(), 1, 64);
  EXPECT_NEAR(estimate.seconds, kFixed + 100, 1e-6);  // as long to read as to write
  SiteRates slow = rates();
  slow.write_bytes_per_second = 0.5e9;
  estimate = estimate_seconds(plan, slow, 1, 64);
  EXPECT_NEAR(estimate.seconds, kFixed + 200, 1e-6);
  EXPECT_EQ(estimate.bound_by, "writing");
  estimate = estimate_seconds(plan, rates(), 100, 64);
  EXPECT_NEAR(estimate.seconds, kFixed + 25, 1e-6);  // 300 GB through 12 GB/s
  EXPECT_EQ(estimate.bound_by, "the file system");
  estimate = estimate_seconds(merge_of(100, "slerp"), rates(), 1, 64);
  EXPECT_NEAR(estimate.seconds, kFixed + 200e9 / (64 * 0.01e9), 1e-6);
  EXPECT_EQ(estimate.bound_by, "computing");
}

TEST(JobEstimate, ForwardPassOfPromptsIsAdded) {
  MergePlan plan = merge_of(1, "linear");
  Slot slot;
  slot.kind = Slot::Kind::kHiddenRouter;
  slot.positive_ids = {{std::vector<std::int64_t>(30)}, {std::vector<std::int64_t>(70)}};
  model::TransformerLayer layer;
  layer.q.rows = 100'000;
  layer.q.columns = 10'000;
  slot.base.layers = {layer, layer};
  plan.slots = {slot};
  // 2 layers of 10^9 elements, 100 tokens, 2 operations each, 8 cores of 10^10 a second.
  const JobEstimate estimate = estimate_seconds(plan, rates(), 1, 8);
  EXPECT_NEAR(estimate.seconds, kFixed + 4e11 / 8e10 + 1, 1e-6);
  EXPECT_EQ(estimate.bound_by, "the forward pass");
}

TEST(JobEstimate, TakesTheFewestNodesThatMeetTheGoal) {
  // 1 node: 4000 s; 2: 2000 s; 4: 1000 s.
  const JobEstimate estimate = estimate_job(merge_of(4000, "linear"), rates(), 0, two_gibibytes);
  EXPECT_EQ(estimate.nodes, 4U);
  EXPECT_NEAR(estimate.seconds, kFixed + 1000, 1);
  EXPECT_EQ(estimate_job(merge_of(1, "linear"), rates(), 0, two_gibibytes).nodes, 1U);
}

TEST(JobEstimate, StopsWhereMoreNodesSaveLittle) {
  SiteRates shared = rates();
  shared.file_system_bytes_per_second = 4e9;  // hardly more than one node's 3
  const JobEstimate estimate = estimate_job(merge_of(40'000, "linear"), shared, 0, two_gibibytes);
  EXPECT_EQ(estimate.nodes, 1U);
  EXPECT_EQ(estimate_job(merge_of(1, "linear"), rates(), 7, two_gibibytes).nodes, 7U);
}

TEST(JobEstimate, RanksHaveEightCoresAndFitTheMemory) {
  const JobEstimate roomy = estimate_job(merge_of(100, "linear"), rates(), 1, two_gibibytes);
  EXPECT_EQ(roomy.ranks_per_node, 8U);
  EXPECT_EQ(roomy.cpus_per_task, 8U);
  EXPECT_EQ(roomy.memory_per_node_bytes, (std::uint64_t{8} * (2048 + 512) + 2048) << 20);
  SiteRates tight = rates();
  tight.memory_per_node_bytes = 12e9;
  const JobEstimate fitted = estimate_job(merge_of(100, "linear"), tight, 1, two_gibibytes);
  EXPECT_EQ(fitted.ranks_per_node, 3U);
  EXPECT_LT(static_cast<double>(fitted.memory_per_node_bytes), 0.9 * 12e9);
  EXPECT_EQ(estimate_job(merge_of(0.001, "linear"), rates(), 1, two_gibibytes).ranks_per_node, 1U) << "one MiB has one writer";
}

TEST(SiteRates, AreReadWithTheirOrigin) {
  const SiteRates rates = parse_site_rates(R"({"schema": "moeweld.site/1", "site": "cedar", "measured": "2026-11-26", "cores_per_node": 48,
      "memory_per_node_bytes": 2e11, "read_bytes_per_second_per_node": 3e9, "write_bytes_per_second_per_node": 2e9,
      "file_system_bytes_per_second": 5e10, "forward_flops_per_second_per_core": 4e10,
      "combine_bytes_per_second_per_core": {"default": 1e9, "ties": 2e8}})",
                                           "site.json");
  EXPECT_EQ(rates.source, "measured, site.json (cedar, 2026-11-26)");
  EXPECT_EQ(rates.cores_per_node, 48U);
  EXPECT_EQ(rates.combine_of.at("ties"), 2e8);
  EXPECT_EQ(rates.combine_bytes_per_second_per_core, 1e9);
}

TEST(SiteRates, EverythingThatIsWrongIsNamed) {
  expect_error([] { parse_site_rates(R"({"schema": "moeweld.site/9"})", "site.json"); }, ErrorCode::kInvalidInput,
               {"site.json", "moeweld.site/9", "moeweld.site/1"});
  expect_error(
      [] {
        parse_site_rates(R"({"schema": "moeweld.site/1", "cores_per_node": 0, "memory_per_node_bytes": "many",
            "read_bytes_per_second_per_node": 1, "write_bytes_per_second_per_node": -1})",
                         "site.json");
      },
      ErrorCode::kInvalidInput,
      {"cores_per_node", "memory_per_node_bytes", "\"many\"", "write_bytes_per_second_per_node", "-1", "file_system_bytes_per_second",
       "combine_bytes_per_second_per_core"});
  expect_error([] { parse_site_rates("[]", "site.json"); }, ErrorCode::kInvalidInput, {"site.json", "object"});
}

}  // namespace
}  // namespace moeweld::plan
