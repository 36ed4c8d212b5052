#include <gtest/gtest.h>
#include <mpi.h>

#include "moeweld/dist/mpi_peers.h"

/// Every rank runs every test. A failure on one rank ends the others too, so that a failed test never becomes a hang.
int main(int argc, char** argv) {
  const moeweld::dist::MpiSession session(&argc, &argv);
  testing::InitGoogleTest(&argc, argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank != 0)
    delete testing::UnitTest::GetInstance()->listeners().Release(testing::UnitTest::GetInstance()->listeners().default_result_printer());
  const int result = RUN_ALL_TESTS();
  int failures = 0;
  MPI_Allreduce(&result, &failures, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (rank == 0 && failures != 0 && result == 0) printf("a test failed on another rank\n");
  return failures;
}
