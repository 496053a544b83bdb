#!/bin/sh
# Runs the tests of the operator: on the cluster that KUBECONFIG names, provided the images are there; else
# on the test cluster, which is started if it does not run, and taken away again if it was started here.
#
# It must not pass in silence where the tests could not run.
set -eu
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
say() { printf 'e2e: %s\n' "$*" >&2; }

skip() {
    say "SKIPPED: the operator was not tested on a cluster: $1"
    if [ -n "${CI:-}" ]; then exit 1; fi
    exit 0
}

if [ -z "${KUBECONFIG:-}" ]; then
    if [ "$(id -u)" -ne 0 ]; then skip 'that needs root, or a cluster named by KUBECONFIG'; fi
    if [ ! -d /sys/fs/cgroup ]; then skip 'there are no control groups here'; fi
    scripts/prepare.sh cluster
    cargo --locked build --workspace --all-targets
    target=$(cd "$target" && pwd)
    cluster=$target/debug/test-cluster
    if ! "$cluster" status --state "$target/cluster" >/dev/null 2>&1; then
        trap '"$cluster" down --state "$target/cluster"' EXIT
        trap 'exit 130' INT TERM
        # What an earlier run of CI left in another clone is nobody's any more.
        "$cluster" up --state "$target/cluster" --binaries "$target/debug" ${CI:+--replace}
    else
        "$cluster" images --state "$target/cluster" --binaries "$target/debug"
    fi
    KUBECONFIG=$target/cluster/kubeconfig
    PATH=$target/cluster/bin:$PATH
    export KUBECONFIG PATH
elif ! command -v kubectl >/dev/null; then
    skip 'that needs kubectl, which this machine lacks'
fi

# One after the other: they share two cores, and each has a workload of its own.
UNDERSTUDY_REQUIRE_CLUSTER=1 cargo --locked test --workspace --test kubernetes -- --test-threads=1 --show-output
say 'everything passed'
