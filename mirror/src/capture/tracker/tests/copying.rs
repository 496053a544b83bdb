//! COPY from the client: which messages belong to it, and which Sync and ReadyForQuery end it.

use super::*;

#[test]
fn data_of_a_copy_belongs_to_the_exchange_that_asked_for_it() {
    check(
        &[
            (Client, message(b'Q', b"copy t from stdin\0")),
            (Server, message(b'G', &[0, 0, 0])),
            (Client, [message(b'd', b"1\n"), message(b'c', b"")].concat()),
            (Server, [message(b'C', b"COPY 1\0"), ready(b'I')].concat()),
        ],
        &["begun 0 at 10 with 23 bytes", "ended 0 served 10..40 [0/1] Idle->Idle copy 12"],
    );
}

#[test]
fn in_the_extended_protocol_the_sync_after_the_data_is_the_one_that_counts() {
    let execute =
        [message(b'P', b"\0copy t from stdin\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    check(
        &[
            (Client, execute),
            (Server, [message(b'1', b""), message(b'G', &[0, 0, 0])].concat()),
            (Client, [message(b'd', b"1\n"), message(b'c', b""), message(b'S', b"")].concat()),
            (Server, [message(b'C', b"COPY 1\0"), ready(b'I')].concat()),
            (Client, message(b'Q', b"x\0")),
            (Server, ready(b'I')),
        ],
        &[
            "begun 0 at 10 with 41 bytes",
            "ended 0 served 10..40 [0/1] Idle->Idle copy 17",
            "begun 1 at 50 with 7 bytes",
            "ended 1 served 50..60 [] Idle->Idle copy 0",
        ],
    );
}

#[test]
fn data_that_comes_after_a_failed_copy_belongs_to_nothing() {
    check(
        &[
            (Client, message(b'Q', b"copy t from stdin\0")),
            (Server, [message(b'G', &[0, 0, 0]), message(b'E', b"C22P02\0\0"), ready(b'I')].concat()),
            (Client, [message(b'd', b"1\n"), message(b'c', b""), message(b'Q', b"x\0")].concat()),
            (Server, ready(b'I')),
        ],
        &[
            "begun 0 at 10 with 23 bytes",
            "ended 0 served 10..20 [22P02] Idle->Idle copy 0",
            "begun 1 at 30 with 7 bytes",
            "ended 1 served 30..40 [] Idle->Idle copy 0",
        ],
    );
}

#[test]
fn what_a_server_ignores_or_fails_in_a_copy_is_no_exchange() {
    let copy = (Client, message(b'Q', b"copy t from stdin\0"));
    let go_on = (Server, message(b'G', &[0, 0, 0]));
    let sync = (Client, [message(b'd', b"1\n"), message(b'S', b""), message(b'H', b""), message(b'c', b"")].concat());
    check(
        &[copy, go_on, sync, (Server, [message(b'C', b"COPY 1\0"), ready(b'I')].concat())],
        &["begun 0 at 10 with 23 bytes", "ended 0 served 10..40 [0/1] Idle->Idle copy 22"],
    );
    let copy = (Client, message(b'Q', b"copy t from stdin\0"));
    let go_on = (Server, message(b'G', &[0, 0, 0]));
    let failed = [message(b'E', b"SERROR\0C08P01\0\0"), ready(b'I')].concat();
    check(
        &[copy, go_on, (Client, message(b'Q', b"select 1\0")), (Server, failed)],
        &["begun 0 at 10 with 23 bytes", "ended 0 served 10..40 [08P01] Idle->Idle copy 0"],
    );
}

#[test]
fn data_that_a_client_sends_before_it_is_asked_belongs_to_the_copy_and_to_no_request_before() {
    let create = message(b'Q', b"create table t (i int)\0");
    let copy = message(b'Q', b"copy t from stdin\0");
    let data = [message(b'd', b"1\n"), message(b'c', b"")].concat();
    let go_on = (Server, [message(b'C', b"CREATE TABLE\0"), ready(b'I'), message(b'G', &[0, 0, 0])].concat());
    check(
        &[
            (Client, [create, copy, data].concat()),
            go_on,
            // The end of the data has been sent: this is no part of the COPY.
            (Client, message(b'Q', b"update t set i = 2\0")),
            (Server, [message(b'C', b"COPY 1\0"), ready(b'I')].concat()),
            (Server, [message(b'C', b"UPDATE 1\0"), ready(b'I')].concat()),
        ],
        &[
            "begun 0 at 10 with 28 bytes",
            "begun 1 at 10 with 23 bytes",
            "ended 0 served 10..20 [0/-] Idle->Idle copy 0",
            "begun 2 at 30 with 24 bytes",
            "ended 1 served 20..40 [0/1] Idle->Idle copy 12",
            "ended 2 served 40..50 [0/1] Idle->Idle copy 0",
        ],
    );
}

#[test]
fn the_sync_behind_data_that_nobody_had_asked_for_is_one_when_the_server_says_so() {
    let execute = |sql: &[u8]| [message(b'P', sql), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    let data = [message(b'd', b"1\n"), message(b'c', b""), message(b'S', b"")].concat();
    let all = || [execute(b"\0copy t from stdin\0\0\0"), data.clone(), execute(b"\0select 1\0\0\0")].concat();
    let selected = || [message(b'1', b""), message(b'D', b"x"), message(b'C', b"SELECT 1\0"), ready(b'I')].concat();
    let begun = ["begun 0 at 10 with 41 bytes", "begun 1 at 10 with 32 bytes"];
    // A COPY that takes the data: the request's own Sync is ignored.
    let copied = [message(b'1', b""), message(b'G', &[0, 0, 0]), message(b'C', b"COPY 1\0"), ready(b'I')].concat();
    let ended = ["ended 0 served 10..20 [0/1] Idle->Idle copy 17", "ended 1 served 20..30 [1/1] Idle->Idle copy 0"];
    check(&[(Client, all()), (Server, copied), (Server, selected())], &[begun, ended].concat());
    // One that fails before: each Sync is answered.
    let failed = [message(b'1', b""), message(b'E', b"C42P01\0\0"), ready(b'I')].concat();
    let ended = ["ended 0 served 10..20 [42P01] Idle->Idle copy 12", "ended 1 served 20..40 [1/1] Idle->Idle copy 0"];
    check(&[(Client, all()), (Server, failed), (Server, ready(b'I')), (Server, selected())], &[begun, ended].concat());
}

#[test]
fn a_copy_whose_data_comes_before_its_sync_needs_no_other() {
    let all = [message(b'P', b"\0copy t from stdin\0\0\0"), message(b'E', b"\0\0\0\0\0")].concat();
    let data = [message(b'd', b"1\n"), message(b'c', b""), message(b'S', b"")].concat();
    let copied = || [message(b'1', b""), message(b'G', &[0, 0, 0])].concat();
    let (flush, done) = (message(b'H', b""), || [message(b'C', b"COPY 1\0"), ready(b'I')].concat());
    check(
        &[
            (Client, [all.clone(), data.clone()].concat()),
            (Server, copied()),
            (Client, message(b'S', b"")),
            (Server, [done(), ready(b'I')].concat()),
        ],
        &[
            "begun 0 at 10 with 53 bytes",
            "begun 1 at 30 with 5 bytes",
            "ended 0 served 10..40 [0/1] Idle->Idle copy 0",
            "ended 1 served 40..40 [] Idle->Idle copy 0",
        ],
    );
    // Asked for after a Flush, with the Sync still to come.
    check(
        &[(Client, [all, flush].concat()), (Server, copied()), (Client, data), (Server, done())],
        &["begun 0 at 10 with 58 bytes", "ended 0 served 10..40 [0/1] Idle->Idle copy 0"],
    );
}

#[test]
fn a_request_behind_one_that_failed_a_copy_is_an_exchange() {
    // A server before 14 goes on.
    check(
        &[
            (Client, message(b'Q', b"copy t from stdin\0")),
            (Server, message(b'G', &[0, 0, 0])),
            (Client, [message(b'Q', b"select 1\0"), message(b'Q', b"x\0")].concat()),
            (Server, [message(b'E', b"C08P01\0\0"), ready(b'I'), ready(b'I')].concat()),
        ],
        &[
            "begun 0 at 10 with 23 bytes",
            "begun 1 at 30 with 7 bytes",
            "ended 0 served 10..40 [08P01] Idle->Idle copy 0",
            "ended 1 served 40..40 [] Idle->Idle copy 0",
        ],
    );
}

/// A trigger before the statement fails it: the server has asked for data, and has not read the Sync of the request.
#[test]
fn a_copy_that_fails_before_its_first_sync_is_read_is_answered_twice() {
    let copy = [message(b'P', b"\0copy t from stdin\0\0\0"), message(b'B', &[0; 8]), message(b'E', &[0; 5])].concat();
    let sync = message(b'S', b"");
    let data = [message(b'd', b"1\n"), message(b'c', b""), sync.clone()].concat();
    let failed = [message(b'E', b"CP0001\0\0"), ready(b'I')].concat();
    let select = message(b'Q', b"select 1\0");
    let selected = [message(b'C', b"SELECT 1\0"), ready(b'I')].concat();
    let begins = [
        (Client, [copy, sync.clone()].concat()),
        (Server, [message(b'1', b""), message(b'2', b""), message(b'G', &[0, 0, 0])].concat()),
        (Client, data),
    ];
    let steps = |rest: Vec<(Side, Vec<u8>)>| {
        let script: Vec<_> = begins.iter().map(|(side, bytes)| (*side, bytes.clone())).chain(rest).collect();
        let whole = describe(&script, usize::MAX);
        assert_eq!(whole, describe(&script, 3));
        whole[2..].to_vec()
    };
    let copied = "ended 0 served 10..40 [P0001] Idle->Idle copy 17";
    // The second one comes behind what the client asks next.
    let late =
        vec![(Server, failed.clone()), (Client, select.clone()), (Server, ready(b'I')), (Server, selected.clone())];
    let ended = "ended 1 served 50..70 [0/1] Idle->Idle copy 0";
    assert_eq!(steps(late), [copied, "begun 1 at 50 with 14 bytes", ended]);
    // Before it.
    let both = [failed.clone(), ready(b'I')].concat();
    let early = vec![(Server, both), (Client, select.clone()), (Server, selected.clone())];
    assert_eq!(steps(early), [copied, "begun 1 at 50 with 14 bytes", "ended 1 served 50..60 [0/1] Idle->Idle copy 0"]);
    // Never: it failed by its data. A Sync alone is answered by nothing else.
    let never = vec![
        (Server, failed),
        (Client, [select.clone(), sync.clone(), select].concat()),
        (Server, [selected.clone(), ready(b'I'), selected].concat()),
    ];
    let ends = steps(never).into_iter().filter(|step| step.starts_with("ended")).count();
    assert_eq!(ends, 4);
}
