#include "moeweld/align/assignment.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "moeweld/base/open_spans.h"

namespace moeweld::align {

namespace {

constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

class Solver {
 public:
  Solver(std::span<const float> similarity, std::size_t size)
      : similarity_(similarity),
        size_(size),
        row_dual_(size),
        column_dual_(size),
        column_of_(size, kNone),
        row_of_(size, kNone),
        distance_(size),
        from_(size),
        is_done_(size) {
    float largest = 0;
    for (const float value : similarity) largest = std::max(largest, std::abs(value));
    int exponent = 0;
    std::frexp(largest, &exponent);
    scale_ = std::ldexp(1.0, 30 - exponent);
  }

  std::vector<std::uint32_t> run() {
    if (!take_best_columns()) {
      take_free_columns();
      for (std::uint32_t row = 0; row < size_; ++row) {
        if (column_of_[row] == kNone) augment(row);
        trace::made_progress();
      }
      prefer_low_columns();
    }
    return std::move(column_of_);
  }

 private:
  std::int64_t cost(std::size_t row, std::size_t column) const {
    return -static_cast<std::int64_t>(static_cast<double>(similarity_[row * size_ + column]) * scale_);
  }
  std::int64_t reduced_cost(std::size_t row, std::size_t column) const { return cost(row, column) - row_dual_[row] - column_dual_[column]; }

  /// Every row's best column, the lowest of equals: if no two rows want the same, nothing is better.
  bool take_best_columns() {
    std::vector<std::uint32_t> best(size_);
    bool distinct = true;
    for (std::uint32_t row = 0; row < size_; ++row) {
      std::int64_t least = cost(row, 0);
      for (std::uint32_t column = 1; column < size_; ++column) {
        const std::int64_t own = cost(row, column);
        if (own >= least) continue;
        least = own;
        best[row] = column;
      }
      row_dual_[row] = least;
      distinct = distinct && row_of_[best[row]] == kNone;
      row_of_[best[row]] = row;
    }
    std::fill(row_of_.begin(), row_of_.end(), kNone);
    if (distinct) column_of_ = std::move(best);
    return distinct;
  }

  void take_free_columns() {
    for (std::uint32_t row = 0; row < size_; ++row) {
      for (std::uint32_t column = 0; column < size_ && column_of_[row] == kNone; ++column) {
        if (row_of_[column] == kNone && reduced_cost(row, column) == 0) match(row, column);
      }
    }
  }

  void match(std::uint32_t row, std::uint32_t column) {
    column_of_[row] = column;
    row_of_[column] = row;
  }

  /// Dijkstra over reduced costs from a row without a column to the nearest column without a row.
  void augment(std::uint32_t start) {
    std::fill(is_done_.begin(), is_done_.end(), false);
    std::fill(distance_.begin(), distance_.end(), std::numeric_limits<std::int64_t>::max());
    std::vector<std::uint32_t> done;
    std::uint32_t row = start;
    std::int64_t so_far = 0;
    std::uint32_t end = kNone;
    while (end == kNone) {
      std::uint32_t nearest = kNone;
      for (std::uint32_t column = 0; column < size_; ++column) {
        if (is_done_[column]) continue;
        const std::int64_t through = so_far + reduced_cost(row, column);
        if (through < distance_[column]) {
          distance_[column] = through;
          from_[column] = row;
        }
        if (nearest == kNone || distance_[column] < distance_[nearest]) nearest = column;
      }
      so_far = distance_[nearest];
      is_done_[nearest] = true;
      if (row_of_[nearest] == kNone) {
        end = nearest;
      } else {
        done.push_back(nearest);
        row = row_of_[nearest];
      }
    }
    for (const std::uint32_t column : done) {
      row_dual_[row_of_[column]] += so_far - distance_[column];
      column_dual_[column] -= so_far - distance_[column];
    }
    row_dual_[start] += so_far;
    for (std::uint32_t column = end; column != kNone;) {
      const std::uint32_t owner = from_[column];
      const std::uint32_t before = column_of_[owner];
      match(owner, column);
      column = owner == start ? kNone : before;
    }
  }

  /// Among the assignments of the largest sum, all of which use edges of reduced cost 0 alone, the first one in the order of columns.
  void prefer_low_columns() {
    for (std::uint32_t row = 0; row < size_; ++row) {
      trace::made_progress();
      for (std::uint32_t column = 0; column < column_of_[row]; ++column) {
        if (row_of_[column] > row && reduced_cost(row, column) == 0 && give_up(row, column)) break;
      }
    }
  }

  /// Row `row` takes `wanted`, its owner another column of reduced cost 0, and so on, the last one the column that `row` had; only rows
  /// after `row` may move.
  bool give_up(std::uint32_t row, std::uint32_t wanted) {
    const std::uint32_t freed = column_of_[row];
    std::fill(is_done_.begin(), is_done_.end(), false);
    std::vector<std::uint32_t> queue{wanted};
    is_done_[wanted] = true;
    for (std::size_t next = 0; next < queue.size(); ++next) {
      const std::uint32_t owner = row_of_[queue[next]];
      for (std::uint32_t column = 0; column < size_; ++column) {
        if (is_done_[column] || row_of_[column] < row || reduced_cost(owner, column) != 0) continue;
        is_done_[column] = true;
        from_[column] = owner;
        queue.push_back(column);
        if (column != freed) continue;
        for (std::uint32_t at = freed; at != wanted;) {
          const std::uint32_t mover = from_[at];
          const std::uint32_t before = column_of_[mover];
          match(mover, at);
          at = before;
        }
        match(row, wanted);
        return true;
      }
    }
    return false;
  }

  const std::span<const float> similarity_;
  const std::size_t size_;
  double scale_ = 1;  // a power of two
  std::vector<std::int64_t> row_dual_;
  std::vector<std::int64_t> column_dual_;
  std::vector<std::uint32_t> column_of_;
  std::vector<std::uint32_t> row_of_;
  std::vector<std::int64_t> distance_;
  std::vector<std::uint32_t> from_;
  std::vector<char> is_done_;
};

}  // namespace

std::vector<std::uint32_t> assign(std::span<const float> similarity, std::size_t size) {
  if (size == 0) return {};
  return Solver(similarity, size).run();
}

std::vector<std::uint32_t> assign_in_groups(std::span<const float> similarity, std::size_t size, std::size_t num_groups) {
  if (num_groups <= 1) return assign(similarity, size);
  const std::size_t members = size / num_groups;
  std::vector<std::vector<std::uint32_t>> inside(num_groups * num_groups);
  std::vector<float> sums(num_groups * num_groups);
  std::vector<float> block(members * members);
  for (std::size_t group = 0; group < num_groups; ++group) {
    for (std::size_t other = 0; other < num_groups; ++other) {
      for (std::size_t i = 0; i < members; ++i) {
        const auto row = similarity.subspan((group * members + i) * size + other * members, members);
        std::copy(row.begin(), row.end(), block.begin() + static_cast<std::ptrdiff_t>(i * members));
      }
      std::vector<std::uint32_t>& own = inside[group * num_groups + other] = assign(block, members);
      double sum = 0;
      for (std::size_t i = 0; i < members; ++i) sum += block[i * members + own[i]];
      sums[group * num_groups + other] = static_cast<float>(sum);
    }
  }
  const std::vector<std::uint32_t> groups = assign(sums, num_groups);
  std::vector<std::uint32_t> result(size);
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t group = i / members;
    const std::size_t other = groups[group];
    result[i] = static_cast<std::uint32_t>(other * members + inside[group * num_groups + other][i % members]);
  }
  return result;
}

}  // namespace moeweld::align
