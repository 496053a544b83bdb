//! Metrics in the OpenMetrics text format. Labels come from closed enums and from the names of arms;
//! never from what clients send.

use std::{fmt, sync::atomic::Ordering};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode as encode_registry},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
    },
    registry::Registry,
};
use understudy_crds::{
    labels::PRODUCTION,
    status::{ArmStatus, ClassKey, LatencyByClass, ShadowExperimentStatus},
};

use crate::{
    log_output,
    mirror::Mirror,
    production::counters::{Cause, NoTls, Side, Wrong},
};

/// The content type of the OpenMetrics text format.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Arm {
    arm: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Malformed {
    side: String,
    cause: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    cause: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ArmKind {
    arm: String,
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ArmLatency {
    arm: String,
    class: String,
    quantile: String,
}

/// Writes everything that is known now.
pub fn encode(to: &mut String, status: &ShadowExperimentStatus, mirror: &Mirror) -> fmt::Result {
    let mut registry = Registry::with_prefix("understudy");
    production(&mut registry, status, mirror);
    arms(&mut registry, &status.arms);
    let latency: Family<ArmLatency, Gauge> = Family::default();
    note_latency(&latency, PRODUCTION, &status.production.latency);
    for arm in &status.arms {
        note_latency(&latency, &arm.name, &arm.latency);
    }
    registry.register("statement_service_microseconds", "Service time of statements since observation began", latency);
    encode_registry(to, &registry)
}

fn production(registry: &mut Registry, status: &ShadowExperimentStatus, mirror: &Mirror) {
    let counters = mirror.counters();
    for (name, help, counter) in [
        ("connections", "Client connections accepted", &counters.connections),
        ("accept_failures", "Failed attempts to take a client in", &counters.unaccepted),
        ("connections_encrypted", "Client connections that use TLS", &counters.encrypted),
        ("logins_unbound", "Logins refused since the channel could not be bound", &counters.unbound),
        ("cancel_requests", "Cancel requests passed on", &counters.cancels),
        ("replication_connections", "Replication connections, relayed and not mirrored", &counters.replication),
        ("worker_unreachable", "Connections ended since the worker could not be reached", &counters.worker_unreachable),
    ] {
        registry.register(name, help, ConstCounter::new(counter.load(Ordering::Relaxed)));
    }
    let unencrypted: Family<Refused, Counter> = Family::default();
    for why in NoTls::ALL {
        unencrypted.get_or_create(&Refused { cause: why.word().to_owned() }).inc_by(counters.unencrypted(why));
    }
    let help = "Connections that ended for want of TLS that both sides take, by cause";
    registry.register("connections_unencrypted", help, unencrypted);
    let malformed: Family<Malformed, Counter> = Family::default();
    for side in Side::ALL {
        for wrong in Wrong::ALL {
            let labels = Malformed { side: side.word().to_owned(), cause: wrong.word().to_owned() };
            malformed.get_or_create(&labels).inc_by(counters.malformed(side, wrong));
        }
    }
    let help = "Connections ended for what is no message or none that belongs there, by who sent it and what is wrong";
    registry.register("connections_malformed", help, malformed);
    let refused: Family<Refused, Counter> = Family::default();
    for cause in Cause::ALL {
        refused.get_or_create(&Refused { cause: cause.word().to_owned() }).inc_by(counters.refused(cause));
    }
    registry.register("connections_refused", "Connections that ended before a session, by cause", refused);
    registry.register(
        "dropped_events",
        "Events and requests not captured for want of memory: capture ends with the first",
        ConstCounter::new(mirror.dropped_events()),
    );
    registry.register(
        "log_lines_lost",
        "Lines of the log that were not written since nobody read it in time",
        ConstCounter::new(log_output::lost_lines()),
    );
    registry.register(
        "arm_clock_stood_microseconds",
        "Time for which the arms waited since production's threads waited for a processor",
        ConstCounter::new(mirror.arm_clock_stood_ns() / 1000),
    );
    registry.register("sessions", "Client sessions open", ConstGauge::of(status.production.sessions));
    registry.register(
        "overhead_p99_microseconds",
        "Upper limit of the 99th percentile of what the mirror adds to a request",
        ConstGauge::of(status.production.overhead_p99_us),
    );
    let memory = i64::try_from(mirror.memory_bytes()).unwrap_or(i64::MAX);
    registry.register("log_bytes", "Memory that captured traffic takes", ConstGauge::of(memory));
    let disk = i64::try_from(mirror.disk_bytes()).unwrap_or(i64::MAX);
    registry.register("log_disk_bytes", "Disk that captured traffic takes", ConstGauge::of(disk));
}

/// A gauge that is made with its value.
struct ConstGauge;

impl ConstGauge {
    fn of(value: i64) -> Gauge {
        let gauge = Gauge::default();
        gauge.set(value);
        gauge
    }
}

fn arms(registry: &mut Registry, arms: &[ArmStatus]) {
    let exchanges: Family<ArmKind, Gauge> = Family::default();
    let divergence: Family<ArmKind, Gauge> = Family::default();
    let lag: Family<Arm, Gauge> = Family::default();
    for arm in arms {
        let name = || arm.name.clone();
        let counts = &arm.exchanges;
        for (kind, value) in [("captured", counts.captured), ("played", counts.played), ("lost", counts.lost)] {
            exchanges.get_or_create(&ArmKind { arm: name(), kind: kind.to_owned() }).set(value);
        }
        let skipped = counts.skipped.values().sum();
        exchanges.get_or_create(&ArmKind { arm: name(), kind: "skipped".to_owned() }).set(skipped);
        for (kind, value) in &arm.divergence {
            let kind = serde_json::to_value(kind).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            divergence.get_or_create(&ArmKind { arm: name(), kind }).set(*value);
        }
        lag.get_or_create(&Arm { arm: name() }).set(arm.lag.exchanges);
    }
    registry.register("arm_exchanges", "Exchanges of an arm by what became of them", exchanges);
    registry.register("arm_divergences", "Outcomes that differed from production's, by kind", divergence);
    registry.register("arm_lag_exchanges", "Exchanges captured and not yet played", lag);
}

fn note_latency(family: &Family<ArmLatency, Gauge>, arm: &str, latency: &LatencyByClass) {
    for (class, values) in latency {
        let class = match class {
            ClassKey::Read => "read",
            ClassKey::Write => "write",
            ClassKey::Commit => "commit",
            ClassKey::Utility => "utility",
        };
        for (quantile, value) in [("0.5", values.p50_us), ("0.95", values.p95_us), ("0.99", values.p99_us)] {
            let labels = ArmLatency { arm: arm.to_owned(), class: class.to_owned(), quantile: quantile.to_owned() };
            family.get_or_create(&labels).set(value);
        }
    }
}
