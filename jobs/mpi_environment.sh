# To be sourced: lets Open MPI start in containers, as root and with more ranks than cores. Defines mpi_run NUMBER_OF_RANKS COMMAND...
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# Ranks that share a core must not spin while they wait.
export OMPI_MCA_mpi_yield_when_idle=1
# Containers often forbid the system call that copies between processes; shared memory does as well.
export OMPI_MCA_btl_vader_single_copy_mechanism=none

mpi_run() {
  local num_ranks="$1"
  shift
  mpirun --oversubscribe --bind-to none -n "$num_ranks" "$@"
}
