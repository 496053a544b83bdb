//! The timeouts by which a server ends a session that says nothing for long: on an arm, whose clock may stand still in
//! the middle of a transaction, none of them may strike. They are switched off in the login, where nothing but the
//! session itself comes after it: neither the role's settings nor a RESET brings them back. Where the client's own login
//! leaves no room for that, they are switched off right behind it, and so are those that a client sets itself. Pure.

use crate::wire::{
    encode,
    startup::{MAX_STARTUP_BYTES, Startup},
};

/// Newest first (17, 14, 9.6): a server that does not know one refuses the login, and an older one knows the rest.
const TIMEOUTS: [&str; 3] = ["transaction_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout"];
/// How many there are.
pub(super) const COUNT: usize = TIMEOUTS.len();
/// `undefined_object`: a parameter of the login is not known.
pub(super) const UNKNOWN: &str = "42704";

/// How a session logs in on an arm.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    /// The first packet.
    pub(super) packet: Vec<u8>,
    /// What is said behind it, SQL.
    pub(super) then: Option<&'static str>,
}

/// Switches off those that the server knows. A RESET ALL would bring back what the role has.
const SWITCH_OFF: &str = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN \
     ('transaction_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout')";

/// So much of a request is looked through for one of them, bytes: what sets something is short.
const LOOKED_THROUGH_BYTES: usize = 16 << 10;

/// Whether a request may set one of them. A statement that was prepared long before is not seen.
pub(super) fn may_be_set_by(request: &[u8]) -> bool {
    let looked_through = request.get(..LOOKED_THROUGH_BYTES).unwrap_or(request);
    let says = |name: &[u8]| looked_through.windows(name.len()).any(|at| at.eq_ignore_ascii_case(name));
    says(b"session_timeout") || says(b"transaction_timeout")
}

/// Switches off what a client has set, on a server that does not know the first `unknown` of them. It looks at no table:
/// the session's transaction, if there is one, has seen nothing before its client asks for something.
pub(super) fn switched_off(unknown: usize) -> String {
    TIMEOUTS.iter().skip(unknown).flat_map(|name| ["SET ", name, " = 0; "]).collect()
}

/// A login as the client's own on an arm, whose server does not know the first `unknown` of the timeouts.
pub(super) fn without_timeouts(startup: &Startup, unknown: usize) -> Login {
    let off = TIMEOUTS.iter().skip(unknown).map(|name| ((*name).to_owned(), "0".to_owned()));
    // Of what is said twice the last counts.
    let parameters = startup.parameters.iter().cloned().chain(off).collect();
    let packet = encode::startup(&Startup { protocol: startup.protocol, parameters });
    if packet.len() <= MAX_STARTUP_BYTES {
        return Login { packet, then: None };
    }
    Login { packet: encode::startup(startup), then: Some(SWITCH_OFF) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::startup::{First, first};

    fn read(packet: &[u8]) -> Startup {
        let Ok(First::Startup(startup)) = first(packet) else { panic!("{packet:?}") };
        startup
    }

    #[test]
    fn a_login_switches_off_the_timeouts_that_the_server_knows() {
        let given = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let asked = [given("user", "ann"), given("idle_session_timeout", "5s")];
        let startup = Startup { protocol: 196_608, parameters: asked.to_vec() };
        for unknown in 0..=COUNT {
            let login = without_timeouts(&startup, unknown);
            assert_eq!(login.then, None);
            let found = read(&login.packet);
            let (own, off) = found.parameters.split_at(2);
            assert_eq!(own, asked, "what the client said stays");
            assert_eq!(off.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), TIMEOUTS[unknown..]);
            assert!(off.iter().all(|(_, value)| value == "0"));
        }
    }

    #[test]
    fn what_a_client_sets_is_seen_and_switched_off_where_the_server_knows_it() {
        let behind = [&[b' '; LOOKED_THROUGH_BYTES][..], b"set transaction_timeout = 1"].concat();
        for (request, expected) in [
            (&b"SET idle_in_transaction_session_timeout = '5s'"[..], true),
            (b"set local Transaction_Timeout to 100", true),
            (b"select set_config('idle_session_timeout', '1s', false)", true),
            (b"SET statement_timeout = '5s'", false),
            (b"BEGIN", false),
            (&behind, false),
        ] {
            assert_eq!(may_be_set_by(request), expected, "{}", request.escape_ascii());
        }
        assert_eq!(switched_off(2), "SET idle_in_transaction_session_timeout = 0; ");
        assert_eq!(switched_off(0).matches(" = 0; ").count(), COUNT);
    }

    #[test]
    fn a_login_that_has_no_room_for_them_stays_as_it_was_and_they_are_switched_off_behind_it() {
        let of = |bytes: usize| {
            let parameters = vec![("user".to_owned(), "ann".to_owned()), ("options".to_owned(), " ".repeat(bytes))];
            Startup { protocol: 196_608, parameters }
        };
        let room = MAX_STARTUP_BYTES - encode::startup(&of(0)).len();
        let bytes_of_all = without_timeouts(&of(0), 0).packet.len() - encode::startup(&of(0)).len();
        let fits = without_timeouts(&of(room - bytes_of_all), 0);
        assert_eq!((fits.packet.len(), fits.then), (MAX_STARTUP_BYTES, None));
        for bytes in [room - bytes_of_all + 1, room] {
            let login = without_timeouts(&of(bytes), 0);
            assert_eq!(read(&login.packet), of(bytes));
            assert!(TIMEOUTS.iter().all(|name| login.then.is_some_and(|sql| sql.contains(name))));
        }
    }
}
