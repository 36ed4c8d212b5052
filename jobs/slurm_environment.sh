# To be sourced by the batch scripts beside it. Defines
#   moeweld_step OPTION... -- ARGUMENT...   one step: moeweld on all ranks of the job; OPTIONs go to the launcher
#   moeweld_job OUT ARGUMENT...             the same, until OUT is there: continues what an earlier job left, ends with 75 to be started again
#   moeweld_end STATUS                      ends the script; a job that is to be continued goes back into the queue
#
# MOEWELD            the program (default: moeweld of the PATH, else build/release/src/app/moeweld)
# MOEWELD_LAUNCHER   srun (default; needs SLURM's pmix plugin: srun --mpi=list) or mpirun (an Open MPI that knows SLURM)
: "${MOEWELD:=$(command -v moeweld || echo "$PWD/build/release/src/app/moeweld")}"
: "${MOEWELD_LAUNCHER:=srun}"
[ -x "$MOEWELD" ] || { echo "There is no program $MOEWELD: build moeweld, or set MOEWELD." >&2; exit 2; }

# srun does not take --cpus-per-task over from sbatch (SLURM 22.05 and newer).
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi

# mpirun notices within two minutes that a node cannot be reached any more; by default it takes ten.
: "${OMPI_MCA_oob_tcp_keepalive_time:=60}" "${OMPI_MCA_oob_tcp_keepalive_intvl:=10}" "${OMPI_MCA_oob_tcp_keepalive_probes:=6}"
export OMPI_MCA_oob_tcp_keepalive_time OMPI_MCA_oob_tcp_keepalive_intvl OMPI_MCA_oob_tcp_keepalive_probes

moeweld_launch() {  # moeweld_launch OPTION... -- ARGUMENT...: replaces this shell, so that signals reach the launcher, and from there the ranks
  local options=()
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  case "$MOEWELD_LAUNCHER" in
    # A rank that dies takes the step with it: the others would wait for it.
    srun) exec srun --mpi=pmix --kill-on-bad-exit=1 ${options[@]+"${options[@]}"} "$MOEWELD" "$@" ;;
    # Open MPI binds to one core or one socket by itself; moeweld shares out the cores that are there.
    mpirun) exec mpirun --bind-to none ${options[@]+"${options[@]}"} "$MOEWELD" "$@" ;;
    *) echo "MOEWELD_LAUNCHER is '$MOEWELD_LAUNCHER'; there are srun and mpirun." >&2; exit 2 ;;
  esac
}

received=""  # the last signal that this script was sent
moeweld_try() {
  local step status
  received=""
  ( trap - USR1 TERM; moeweld_launch "$@" ) &
  step=$!
  # SLURM signals the batch shell (--signal=B:USR1@…, scancel, time limit), which hands it on. A shell that waits returns at once.
  trap 'received=USR1; kill -USR1 $step 2>/dev/null' USR1
  trap 'received=TERM; kill -TERM $step 2>/dev/null' TERM
  while kill -0 "$step" 2>/dev/null; do wait "$step" || true; done
  status=0
  wait "$step" || status=$?  # the shell remembers it
  trap - USR1 TERM
  return "$status"
}

# Where SLURM 22.05 starts Open MPI 4.1 itself, about one step in a hundred ends in MPI_Init with a segmentation fault: a rank is sent a message
# before it can take one (its setting PMIxCollFence does not help). Nothing has begun then, so the step is tried again. srun ends with the
# highest code of its tasks: the crashed one's 139, or 143 where it had to end others by SIGTERM.
readonly moeweld_most_tries=3 moeweld_start_seconds=30
moeweld_step() {
  local try begin status
  for ((try = 1; ; ++try)); do
    begin=$SECONDS status=0
    moeweld_try "$@" || status=$?
    { [ "$status" -eq 139 ] || [ "$status" -eq 143 ]; } && [ -z "$received" ] && [ $((SECONDS - begin)) -lt "$moeweld_start_seconds" ] && [ "$try" -lt "$moeweld_most_tries" ] ||
      return "$status"
    echo "A rank crashed ($status) within $moeweld_start_seconds s of its start: trying again ($((try + 1)) of $moeweld_most_tries)." >&2
  done
}

wants_restart() {  # wants_restart OUT STATUS: whether a run that ended with STATUS can be continued
  [ ! -e "$1" ] || return 1
  # 75 is moeweld's "continue me". A launcher may answer a signal with a status of its own, so the journal is asked, too.
  [ "$2" -eq 75 ] || { [ -n "$received" ] && [ -d "$1.partial/journal" ]; }
}

moeweld_job() {
  local out="${1%/}" status=0
  shift
  if [ -e "$out" ] && [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    echo "$out is complete: an earlier run of this job finished it."
    return 0
  fi
  moeweld_step -- "$@" --resume || status=$?
  if [ "$status" -ne 0 ] && wants_restart "$out" "$status"; then return 75; fi
  return "$status"
}

moeweld_end() {
  # Only a saved state is queued again, so a mistake in the configuration does not come back; nor does what scancel ended.
  if [ "$1" -eq 75 ] && [ "$received" != TERM ]; then
    echo "Not finished: back into the queue (restart $((${SLURM_RESTART_COUNT:-0} + 1)))."
    scontrol requeue "$SLURM_JOB_ID" && sleep 60  # SLURM ends this script
  fi
  exit "$1"
}
