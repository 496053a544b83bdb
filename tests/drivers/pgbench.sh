#!/bin/sh
# pgbench with one client, so that what is asked is always the same: its tables made in two ways, each built-in
# script in each query mode, and a pipeline. Where the server is, libpq's variables say.
set -eu

section() { printf -- '--- %s\n' "$*"; }

# What is said of time is left out.
bench() {
    said=$(pgbench -n -c 1 --random-seed=42 "$@" 2>&1) || { echo "exit $?: $said"; exit 1; }
    echo "$said" | grep -E '^(transaction type|query mode|number of|pgbench: error)'
}

initialise() {
    said=$(pgbench -i -q "$@" 2>&1) || { echo "exit $?: $said"; exit 1; }
    echo "$said" | sed -E 's/[0-9.]+ s\>/… s/g'
}

section 'tables that the server fills'
initialise -I dtGvpf
section 'tables that the client fills'
initialise
for mode in simple extended prepared; do
    section "$mode"
    bench -M "$mode" -t 40 -b tpcb-like
    bench -M "$mode" -t 40 -N
    # A connection for each transaction.
    bench -M "$mode" -t 5 -C -b simple-update
done
for mode in extended prepared; do
    section "a pipeline, $mode"
    bench -M "$mode" -t 20 -f pgbench_pipeline.sql
done
# They come last: on an arm, a later write overtakes them (`tests/e2e/tests/agreement.rs`).
for mode in simple extended prepared; do
    section "reads, $mode"
    bench -M "$mode" -t 100 -S
done
section 'done'
