#!/bin/bash
# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
#
# Runs on Cloud TPU VMs, all hosts of a slice, through gcloud:
#
#   launch/tpu_vm.sh create              waits until the slice is there
#   launch/tpu_vm.sh install             this folder, on every host
#   launch/tpu_vm.sh train CONFIG --workdir gs://BUCKET/mine ...
#   launch/tpu_vm.sh tail                output of the first host, as it comes
#   launch/tpu_vm.sh status              of the slice, and of each process
#   launch/tpu_vm.sh stop                SIGTERM to all: they save and end
#   launch/tpu_vm.sh delete
#   launch/tpu_vm.sh keep train CONFIG --workdir gs://BUCKET/mine ...
#        all of it, again after every preemption, until the run is finished;
#        let it run on a machine that stays
#
# Environment (defaults): NAME (jdistill), TYPE (v5litepod-16), VERSION (the
# runtime; follows from TYPE), PROJECT and ZONE (gcloud's), SPOT (1; 0 for on
# demand), QUEUE (1: a queued resource, waits for room; 0: a TPU VM at once or
# not at all), CREATE_FLAGS (more flags of create), POLL (30 seconds), FAULTS
# (10).
#
# A preempted TPU VM never comes back: the run's directory must be a bucket, in
# which the next slice finds the checkpoints. The hosts get SIGTERM some 30 s
# before; the processes then save and exit 143. `keep` starts again after that,
# after a lost slice, and FAULTS times after other faults; exit code 2, a
# mistake in the config or the data, ends it.
set -euo pipefail

NAME=${NAME:-jdistill}
TYPE=${TYPE:-v5litepod-16}
SPOT=${SPOT:-1}
QUEUE=${QUEUE:-1}
POLL=${POLL:-30}
FAULTS=${FAULTS:-10}
HERE=$(cd "$(dirname "$0")/.." && pwd)
where=(${PROJECT:+"--project=$PROJECT"} ${ZONE:+"--zone=$ZONE"})

tpus() { gcloud compute tpus "$@" ${where[@]+"${where[@]}"}; }

version() {
  case $TYPE in
  v5lite*) echo v2-alpha-tpuv5-lite ;;
  v5p*) echo v2-alpha-tpuv5 ;;
  v6e*) echo v2-alpha-tpuv6e ;;
  *) echo tpu-ubuntu2204-base ;;
  esac
}

# The slice's state: nothing when there is none, UNKNOWN when nobody says.
state() {
  local what=tpu-vm field=state found
  [ "$QUEUE" = 1 ] && what=queued-resources field=state.state
  if found=$(tpus "$what" describe "$NAME" --format="value($field)" 2>&1); then
    echo "$found" | tail -n 1
  elif ! grep -qi 'not.\?found' <<<"$found"; then
    echo "launch: $found" >&2
    echo UNKNOWN
  fi
}

create() {
  local flags=("--accelerator-type=$TYPE" "--version=${VERSION:-$(version)}")
  [ "$SPOT" = 1 ] && flags+=(--spot)
  # shellcheck disable=SC2206 # several words
  flags+=(${CREATE_FLAGS:-})
  if [ "$QUEUE" = 1 ]; then
    flags[1]="--runtime-version=${VERSION:-$(version)}"
    tpus queued-resources create "$NAME" --node-id="$NAME" "${flags[@]}"
  else
    tpus tpu-vm create "$NAME" "${flags[@]}"
  fi
  await
}

# Waits until the slice can be used; fails if that will never be.
await() {
  local now
  while now=$(state); do
    case $now in
    ACTIVE | READY) return 0 ;;
    '' | FAILED | SUSPEND* | PREEMPTED | TERMINATED | STOPPED | DELETING)
      echo "launch: $NAME is ${now:-gone}" >&2
      return 1
      ;;
    esac
    echo "launch: $NAME is $now" >&2
    sleep "$POLL"
  done
}

delete() {
  if [ "$QUEUE" = 1 ]; then
    tpus queued-resources delete "$NAME" --force --quiet
  else
    tpus tpu-vm delete "$NAME" --quiet
  fi
}

# Runs this file's `worker WHAT ...` on hosts; each argument arrives as it is.
on() {
  local hosts=$1 command
  shift
  command="bash jdistill/launch/tpu_vm.sh worker$(printf ' %q' "$@")"
  tpus tpu-vm ssh "$NAME" --worker="$hosts" --command="$command"
}

# What became of the processes on hosts: running, none, or the exit code.
codes() {
  tpus tpu-vm ssh "$NAME" --worker="$1" --command="if [ -d jdistill ]; then
    bash jdistill/launch/tpu_vm.sh worker code; else echo none; fi"
}

install() {
  local archive
  archive=$(mktemp -d)/jdistill.tgz
  tar -czf "$archive" -C "$HERE" --exclude=.git --exclude=.venv \
    --exclude=runs --exclude=__pycache__ .
  tpus tpu-vm scp "$archive" "$NAME:jdistill.tgz" --worker=all
  tpus tpu-vm ssh "$NAME" --worker=all --command="mkdir -p jdistill &&
    tar -xzf jdistill.tgz -C jdistill"
  rm -r "$(dirname "$archive")"
  on all install
}

keep() {
  local code faults=0 first=1
  while [ "$faults" -le "$FAULTS" ]; do
    case $(state) in
    ACTIVE | READY) ;;
    '')
      create || {
        sleep "$POLL"
        continue
      }
      ;;
    FAILED | SUSPEND* | PREEMPTED | TERMINATED | STOPPED)
      delete || sleep "$POLL"
      continue
      ;;
    *)
      await || true
      continue
      ;;
    esac
    code=$(codes 0 2>/dev/null || echo unreachable)
    # A code that is there at first is of an earlier run.
    [ -n "$first" ] && [[ $code =~ ^[0-9]+$ ]] && code=none
    [ "$code" = unreachable ] || first=
    case $code in
    running | unreachable)
      sleep "$POLL"
      continue
      ;;
    0 | 2) on 0 log || true; return "$code" ;;
    none | 143) ;;
    *)
      faults=$((faults + 1))
      on 0 log || true
      ;;
    esac
    echo "launch: exit code $code; starting" >&2
    { install && on all stop && on all start "$@" --distributed; } || sleep "$POLL"
  done
  echo "launch: more than $FAULTS faults; the slice $NAME is still there" >&2
  return 1
}

# --- what runs on a host of the slice ---------------------------------------

runs() { [ ! -e jdistill.code ] && kill -0 "$1" 2>/dev/null; }

worker() {
  cd ~
  local what=$1 pid
  shift
  pid=$(cat jdistill.pid 2>/dev/null || true)
  case $what in
  install) # the image's own Python may be older than jdistill needs
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --allow-existing --python 3.12 jdistill-venv
    python3 -m uv pip install --quiet --python jdistill-venv \
      -e './jdistill[tpu,gcs]'
    ;;
  start)
    rm -f jdistill.code
    nohup setsid bash "$HERE/launch/tpu_vm.sh" worker run "$@" \
      >jdistill.log 2>&1 </dev/null &
    echo $! >jdistill.pid
    ;;
  run)
    cd jdistill
    local child='' told code
    trap 'told=1; kill -TERM $child 2>/dev/null' TERM
    PATH=~/jdistill-venv/bin:$PATH jdistill "$@" &
    child=$!
    # A signal ends the first wait before the process has ended.
    while told='' code=0 && { wait "$child" || code=$?; } && [ "$told" ]; do
      :
    done
    echo "$code" >~/jdistill.code
    ;;
  stop)
    runs "$pid" && kill -TERM "$pid"
    for _ in $(seq 1200); do
      runs "$pid" || return 0
      sleep 0.1
    done
    kill -KILL -- "-$pid"
    ;;
  code)
    if [ -e jdistill.code ]; then
      cat jdistill.code
    elif runs "$pid"; then
      echo running
    else
      echo none
    fi
    ;;
  log) tail -n 50 jdistill.log ;;
  follow) tail -n 50 -F jdistill.log ;;
  esac
}

command=${1:-}
[ $# -gt 0 ] && shift
case $command in
create | install | delete | keep | worker) "$command" "$@" ;;
train) on all start train "$@" --distributed ;;
tail) on 0 follow ;;
stop) on all stop ;;
status)
  state
  codes all
  ;;
*)
  sed -n '5,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2
  exit 2
  ;;
esac
