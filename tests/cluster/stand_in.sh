#!/bin/bash
# In the place of moeweld: takes its time until it is signalled, so that a test sees what a batch script does with signals and exit codes.
# Each rank appends what happens to it to $STAND_IN_LOG. The first run of a job ends with 75 after USR1 and leaves OUT.partial/journal; a
# later one makes OUT. With STAND_IN_STATUS every run ends at once with that. Rank 0 of the job's first STAND_IN_CRASHES steps crashes.
out="$3"
rank="${PMIX_RANK:-${OMPI_COMM_WORLD_RANK:-0}}"
say() { echo "run ${SLURM_RESTART_COUNT:-0} link ${CHAIN_LINK:-1} rank $rank $(uname -n) $*" >>"$STAND_IN_LOG"; }
if [ "${SLURM_STEP_ID:-0}" -lt "${STAND_IN_CRASHES:-0}" ]; then
  ulimit -c 0
  [ "$rank" != 0 ] || { say crashes; kill -SEGV $$; }
  # In the first step SIGTERM does not end the others; in later ones it does.
  [ "${SLURM_STEP_ID:-0}" != 0 ] || trap '' TERM
  for ((i = 0; i < 300; ++i)); do sleep 0.1; done
  exit 1
fi
say begins
[ -z "${STAND_IN_STATUS:-}" ] || exit "$STAND_IN_STATUS"
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || [ "${CHAIN_LINK:-1}" -gt 1 ]; then
  [ "$rank" != 0 ] || mv "$out.partial" "$out"
  say done
  exit 0
fi
mkdir -p "$out.partial/journal"
# moeweld's ranks agree before they end. One that ends by itself would let mpirun end the others before they have been heard.
await_others() {
  trap '' TERM
  local ranks="${OMPI_COMM_WORLD_SIZE:-${SLURM_NTASKS:-1}}"
  for ((i = 0; i < 100; ++i)); do
    [ "$(grep -c "^run ${SLURM_RESTART_COUNT:-0} link ${CHAIN_LINK:-1} .* USR1$" "$STAND_IN_LOG")" -lt "$ranks" ] || return
    sleep 0.1
  done
}
trap 'say USR1; await_others; exit 75' USR1
trap 'say TERM; exit 75' TERM
say waits
for ((i = 0; i < 300; ++i)); do sleep 0.1; done
exit 1
