#include "app/progress.h"

#include <gtest/gtest.h>

#include "moeweld/formats/json.h"

namespace moeweld::app {
namespace {

// Three ranks with 4 + 4 + 2 GB, of which 3 + 2 + 1.5 GB are written.
const std::vector<exec::Progress> kThree = {
    {.read_bytes = 12'000'000'000, .written_bytes = 3'000'000'000, .total_written_bytes = 4'000'000'000},
    {.read_bytes = 9'000'000'000, .written_bytes = 2'000'000'000, .total_written_bytes = 4'000'000'000},
    {.read_bytes = 5'000'000'000, .written_bytes = 1'500'000'000, .total_written_bytes = 2'000'000'000}};

TEST(ProgressFigures, AddUpRanksAndNameTheOneThatLagsMost) {
  const ProgressFigures figures = progress_figures(kThree, 10);
  EXPECT_DOUBLE_EQ(figures.fraction, 0.65);
  EXPECT_EQ(figures.written_bytes, 6'500'000'000U);
  EXPECT_EQ(figures.total_bytes, 10'000'000'000U);
  EXPECT_DOUBLE_EQ(figures.read_gb_per_s, 2.6);
  EXPECT_DOUBLE_EQ(figures.write_gb_per_s, 0.65);
  EXPECT_DOUBLE_EQ(figures.eta_seconds.value(), 10);  // rank 1 is half-way after 10 s
  EXPECT_EQ(figures.slowest_rank, 1);
  EXPECT_DOUBLE_EQ(figures.slowest_behind, 0.15);
}

TEST(ProgressFigures, WhereSharesMoveTheWholeTellsWhenItEnds) {
  std::vector<exec::Progress> moving = kThree;
  for (exec::Progress& progress : moving) progress.shares_move = true;
  const ProgressFigures figures = progress_figures(moving, 10);
  EXPECT_DOUBLE_EQ(figures.eta_seconds.value(), 10 * 0.35 / 0.65);
  EXPECT_EQ(figures.slowest_rank, 1);
}

TEST(ProgressText, IsOneLineWithEverything) {
  EXPECT_EQ(progress_text(progress_figures(kThree, 10)),
            " 65 %  6.5 GB of 10 GB written   read 2.6 GB/s  write 0.7 GB/s   ETA 0:10   slowest rank 1 (-15 %)");
}

TEST(ProgressText, OneRankIsNotTheSlowest) {
  EXPECT_EQ(progress_text(progress_figures(std::span(kThree).first(1), 60)),
            " 75 %  3 GB of 4 GB written   read 0.2 GB/s  write 0.1 GB/s   ETA 0:20");
}

TEST(ProgressText, NamesNoRankWhileAllAreLevel) {
  const std::vector<exec::Progress> level = {{.read_bytes = 1, .written_bytes = 500, .total_written_bytes = 1000},
                                             {.read_bytes = 1, .written_bytes = 501, .total_written_bytes = 1000}};
  EXPECT_EQ(progress_text(progress_figures(level, 1)).find("slowest"), std::string::npos);
}

TEST(ProgressText, NothingWrittenYetHasNoEnd) {
  const std::vector<exec::Progress> measuring = {{.read_bytes = 1'000'000'000, .written_bytes = 0, .total_written_bytes = 2'000'000'000}};
  EXPECT_EQ(progress_text(progress_figures(measuring, 1)), "  0 %  0 B of 2 GB written   read 1.0 GB/s  write 0.0 GB/s   ETA unknown");
  EXPECT_TRUE(formats::Json::parse(progress_json(progress_figures(measuring, 1)))["eta_seconds"].is_null());
}

TEST(ProgressFigures, RanksWithoutAShareAreDone) {
  const std::vector<exec::Progress> two = {{.read_bytes = 1, .written_bytes = 50, .total_written_bytes = 100}, {}};
  EXPECT_EQ(progress_figures(two, 1).slowest_rank, 0);
  EXPECT_DOUBLE_EQ(progress_figures(two, 1).slowest_behind, 0);
}

exec::MergeReport report_of(double first_seconds, double second_seconds) {
  exec::MergeReport report;
  report.ranks = {{.merge_seconds = first_seconds}, {.merge_seconds = second_seconds}};
  return report;
}

TEST(SummaryText, ComparesTheSlowestRankWithTheFastest) {
  EXPECT_NE(summary_text(report_of(2, 3), 1, "out").find("; slowest rank 1 (+50 % over the fastest)"), std::string::npos);
  EXPECT_EQ(summary_text(report_of(2, 2.04), 1, "out").find("slowest"), std::string::npos);
}

TEST(SummaryText, ARankWithoutWorkIsNoMeasure) {
  EXPECT_NE(summary_text(report_of(3, 0.01), 1, "out").find("; slowest rank 0 (+3.0 s over the fastest)"), std::string::npos);
}

TEST(ProgressJson, HasTheFiguresOfTheLine) {
  const formats::Json json = formats::Json::parse(progress_json(progress_figures(kThree, 10)));
  EXPECT_EQ(json["event"], "progress");
  EXPECT_EQ(json["written_bytes"], 6'500'000'000U);
  EXPECT_EQ(json["slowest_rank"], 1);
  EXPECT_DOUBLE_EQ(json["slowest_behind"].get<double>(), 0.15);
}

}  // namespace
}  // namespace moeweld::app
