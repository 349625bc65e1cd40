#!/bin/bash
# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
#
# Runs on GKE through XPK (pip install xpk):
#
#   launch/xpk.sh cluster                a cluster of spot TPU slices
#   launch/xpk.sh image                  builds and pushes $IMAGE
#   launch/xpk.sh train CONFIG --workdir gs://BUCKET/mine ...
#   launch/xpk.sh tail | list | delete | delete-cluster
#
# Environment (defaults): CLUSTER (jdistill), NAME of the run (jdistill), TPU
# (v5litepod-16), SLICES (1), IMAGE, PROJECT and ZONE (gcloud's), XPK_FLAGS
# (more flags of xpk, such as --dry-run or --on-demand).
#
# A preempted slice makes every process save and exit 143, one of the codes on
# which XPK starts a workload again; a crash ends with 1, a lost host's peers
# with more than 127. Only 2, a mistake in the config or the data, fails at
# once.
set -euo pipefail
cd "$(dirname "$0")/.."

CLUSTER=${CLUSTER:-jdistill}
NAME=${NAME:-jdistill}
TPU=${TPU:-v5litepod-16}
SLICES=${SLICES:-1}
image() {
  if [ -z "${IMAGE:-}" ]; then
    echo "launch: say which image, such as IMAGE=REGISTRY/jdistill" >&2
    exit 2
  fi
}

# shellcheck disable=SC2206 # XPK_FLAGS are several words
where=(--cluster "$CLUSTER" ${PROJECT:+--project "$PROJECT"}
  ${ZONE:+--zone "$ZONE"} ${XPK_FLAGS:-})

case ${1:-} in
cluster)
  xpk cluster create --tpu-type "$TPU" --num-slices "$SLICES" --spot \
    "${where[@]}"
  ;;
image)
  image
  docker build -f launch/Dockerfile -t "$IMAGE" .
  docker push "$IMAGE"
  ;;
train)
  image
  # `exec`: the signal that XPK's shell passes on must reach jdistill itself.
  command="exec jdistill$(printf ' %q' "$@") --distributed"
  xpk workload create --workload "$NAME" --tpu-type "$TPU" \
    --num-slices "$SLICES" --docker-image "$IMAGE" \
    --max-restarts 1000 --restart-on-exit-codes 1 \
    --termination-grace-period-seconds 120 \
    --command "$command" "${where[@]}"
  ;;
tail)
  kubectl logs --follow --max-log-requests=64 --prefix \
    --selector="jobset.sigs.k8s.io/jobset-name=$NAME"
  ;;
list) xpk workload list "${where[@]}" ;;
delete) xpk workload delete --workload "$NAME" "${where[@]}" ;;
delete-cluster) xpk cluster delete "${where[@]}" ;;
*)
  sed -n '5,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2
  exit 2
  ;;
esac
