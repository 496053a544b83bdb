//! What a server's log says about why it ended.
//!
//! Pure text work over the end of a log; the file is read elsewhere.

/// The last complaint of a server, with its details: the last `PANIC` or `FATAL` (or, without one,
/// `ERROR`) and the `DETAIL`, `HINT` and `CONTEXT` lines that belong to it. Lines that only say that
/// the server is not ready yet are passed over. `None` when nothing is meaningful.
pub fn last_complaint(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().collect();
    ["PANIC", "FATAL", "ERROR", "postgres"].iter().find_map(|severity| {
        let at = lines.iter().rposition(|line| message(line, severity).is_some_and(is_meaningful))?;
        let mut found = vec![message(lines.get(at)?, severity)?.to_owned()];
        if found.iter().any(|text| text.starts_with("configuration file") && text.ends_with("contains errors")) {
            // What is wrong with it was logged just before.
            let before = lines.get(..at).unwrap_or_default().iter().rev();
            let mut reasons: Vec<_> = before.map_while(|line| message(line, "LOG")).map(str::to_owned).collect();
            reasons.reverse();
            found = if reasons.is_empty() { found } else { reasons };
        }
        for line in lines.iter().skip(at + 1) {
            let detail = ["DETAIL", "HINT"].iter().find_map(|kind| message(line, kind));
            let Some(detail) = detail else { break };
            found.push(detail.to_owned());
        }
        Some(found.join("\n"))
    })
}

fn message<'a>(line: &'a str, severity: &str) -> Option<&'a str> {
    if let Some((before, text)) = line.split_once(&format!("{severity}:")) {
        // The severity stands behind the line's prefix, not somewhere in a statement.
        return (!before.contains(':') || before.contains('[')).then(|| text.trim());
    }
    None
}

fn is_meaningful(text: &str) -> bool {
    const NOISE: [&str; 5] = [
        "the database system is",
        "terminating connection due to administrator command",
        "terminating walreceiver process",
        "terminating background worker",
        "canceling",
    ];
    !text.is_empty() && !NOISE.iter().any(|noise| text.starts_with(noise))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_meaningful_complaint_is_found() {
        let cases = [
            (
                "2026-01-01 10:00:00.000 UTC [1] LOG:  starting\n\
                 2026-01-01 10:00:00.000 UTC [1] FATAL:  could not create shared memory segment: x\n\
                 2026-01-01 10:00:00.000 UTC [1] DETAIL:  Failed system call was shmget.\n\
                 2026-01-01 10:00:00.000 UTC [1] HINT:  Reduce shared_buffers.\n\
                 2026-01-01 10:00:00.000 UTC [1] LOG:  database system is shut down\n",
                Some(
                    "could not create shared memory segment: x\nFailed system call was shmget.\nReduce shared_buffers.",
                ),
            ),
            ("[1] FATAL:  the real one\n[2] FATAL:  the database system is starting up\n", Some("the real one")),
            ("[1] FATAL:  first\n[1] PANIC:  second\n[1] FATAL:  third\n", Some("second")),
            (
                "postgres: could not access the server configuration file \"x\"\n",
                Some("could not access the server configuration file \"x\""),
            ),
            (
                "[0] FATAL:  older\n[1] LOG:  1 kB is outside the valid range\n[1] FATAL:  configuration file \"x\" contains errors\n",
                Some("1 kB is outside the valid range"),
            ),
            ("[1] LOG:  all is well\n", None),
            ("", None),
        ];
        for (log, expected) in cases {
            assert_eq!(last_complaint(log).as_deref(), expected, "{log}");
        }
    }
}
