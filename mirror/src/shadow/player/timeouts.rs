//! The timeouts by which a server ends a session that says nothing for long: on an arm, whose clock may stand still in
//! the middle of a transaction, none of them may strike. They are switched off in the login, where nothing but the
//! session itself comes after it: neither the role's settings nor a RESET brings them back. Pure.

use crate::wire::startup::Startup;

/// Newest first (17, 14, 9.6): a server that does not know one refuses the login, and an older one knows the rest.
const TIMEOUTS: [&str; 3] = ["transaction_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout"];
/// How many there are.
pub(super) const COUNT: usize = TIMEOUTS.len();
/// `undefined_object`: a parameter of the login is not known.
pub(super) const UNKNOWN: &str = "42704";

/// What an arm is asked for instead, whose server does not know the first `unknown` of them. Of what is said twice the
/// last counts.
pub(super) fn without_timeouts(startup: &Startup, unknown: usize) -> Startup {
    let off = TIMEOUTS.iter().skip(unknown).map(|name| ((*name).to_owned(), "0".to_owned()));
    Startup { protocol: startup.protocol, parameters: startup.parameters.iter().cloned().chain(off).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_switches_off_the_timeouts_that_the_server_knows() {
        let given = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let asked = [given("user", "ann"), given("idle_session_timeout", "5s")];
        let startup = Startup { protocol: 196_608, parameters: asked.to_vec() };
        for unknown in 0..=COUNT {
            let found = without_timeouts(&startup, unknown);
            let (own, off) = found.parameters.split_at(2);
            assert_eq!(own, asked, "what the client said stays");
            assert_eq!(off.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), TIMEOUTS[unknown..]);
            assert!(off.iter().all(|(_, value)| value == "0"));
        }
    }
}
