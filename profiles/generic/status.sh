#!/bin/sh
# What has become of the job with this number: running, success or failed. A job that nobody knows any more has failed,
# which costs another attempt, and that goes on from what was saved.
told=$(squeue --noheader --states=all --format=%T --job "$1" 2>&1) || case "$told" in
  *"Invalid job id"*) told="" ;;
  *) echo running; exit ;;  # Slurm does not answer: the job may be well
esac
state=$(echo "$told" | head -n 1)
[ -n "$state" ] || state=$(sacct --noheader --allocations --format=State --job "$1" 2>/dev/null | head -n 1 | cut -d' ' -f1)
case "$state" in
  PENDING | CONFIGURING | RUNNING | COMPLETING | SUSPENDED | REQUEUED | REQUEUE_HOLD | RESIZING | STAGE_OUT) echo running ;;
  COMPLETED) echo success ;;
  *) echo failed ;;
esac
# PBS:
# job=$(qstat -x -f "$1" 2>/dev/null)
# case "$job" in
#   *"job_state = F"*"Exit_status = 0"* | *"Exit_status = 0"*"job_state = F"*) echo success ;;
#   *"job_state = F"* | "") echo failed ;;
#   *) echo running ;;
# esac
