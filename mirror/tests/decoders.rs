//! A short run of the fuzz targets' checks: the committed corpora, random bytes, and well-formed ones with a
//! few bytes changed, which reach further. The runs are the same each time.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use understudy_mirror::shadow::log::segment::frames;

#[path = "../fuzz/src/lib.rs"]
mod checks;
#[path = "decoders/found.rs"]
mod found;
#[path = "decoders/words.rs"]
mod words;

use self::words::{
    answer, contents, conversation, login, mutated, offer, packet, random, records, request, rows, segment, sql, stream,
};

/// What a corpus may take of a checkout.
const MAX_FILES: usize = 200;
const MAX_BYTES: u64 = 200_000;

/// Runs a check over as many inputs, the same each time.
fn run(target: &str, cases: u32, inputs: impl Strategy<Value = Vec<u8>>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let ran = runner.run(&inputs, |data| {
        checks::check(target, &data);
        Ok(())
    });
    if let Err(error) = ran {
        panic!("{target}: {error}");
    }
}

#[test]
fn the_frame_splitter_takes_any_bytes() {
    run("frames", 4096, prop_oneof![random(), stream(), mutated(stream())]);
}

#[test]
fn the_first_packet_may_be_any_bytes() {
    run("startup", 4096, prop_oneof![random(), packet(), mutated(packet())]);
}

#[test]
fn what_is_said_for_a_client_is_read_back() {
    run("encode", 4096, prop_oneof![random(), packet(), mutated(packet())]);
}

#[test]
fn the_tracker_takes_any_bytes_of_both_sides() {
    run("tracker", 4096, prop_oneof![random(), conversation(), mutated(conversation())]);
}

#[test]
fn a_row_has_one_digest_however_it_comes() {
    run("digest", 1024, prop_oneof![random(), rows()]);
}

#[test]
fn requests_may_say_anything() {
    run("frontend", 4096, prop_oneof![random(), request(), mutated(request())]);
}

#[test]
fn answers_may_say_anything() {
    run("backend", 4096, prop_oneof![random(), contents(), mutated(contents()), answer()]);
}

#[test]
fn a_sasl_offer_may_be_any_bytes() {
    run("sasl", 4096, prop_oneof![random(), offer(), mutated(offer())]);
}

#[test]
fn a_login_passes_as_it_comes() {
    run("login", 1024, prop_oneof![random(), login(), mutated(login())]);
}

#[test]
fn the_lexer_takes_any_bytes() {
    run("lexer", 4096, prop_oneof![random(), sql(), mutated(sql())]);
}

#[test]
fn a_text_stands_for_all_of_its_template() {
    run("template", 1024, prop_oneof![random(), sql(), mutated(sql())]);
}

#[test]
fn a_session_is_followed_through_any_conversation() {
    run("plan", 1024, prop_oneof![random(), conversation(), mutated(conversation())]);
}

#[test]
fn an_arm_may_say_anything() {
    run("player", 2000, proptest::collection::vec(any::<u8>(), 8..400));
}

#[test]
fn events_of_the_traffic_log_may_be_any_bytes() {
    run("record", 4096, prop_oneof![random(), records(), mutated(records())]);
}

#[test]
fn a_segment_of_the_traffic_log_may_be_any_bytes() {
    run("segment", 512, prop_oneof![random(), segment(), mutated(segment())]);
}

/// What is behind the header is only tried where that is right.
#[test]
fn segments_that_are_made_here_have_frames() {
    let mut runner = TestRunner::deterministic();
    let mut found = 0;
    for _ in 0..20 {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&segment().new_tree(&mut runner).unwrap().current()).unwrap();
        found += frames(file).unwrap().count();
    }
    assert!(found > 10, "{found} frames in 20 segments");
}

#[test]
fn a_whole_session_may_be_anything() {
    run("session", 3000, proptest::collection::vec(any::<u8>(), 8..400));
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn every_target_takes_its_corpus() {
    for (target, check) in checks::TARGETS {
        let directory = fuzz().join("corpus").join(target);
        let listed = fs::read_dir(&directory);
        let Ok(listed) = listed else { panic!("{target} has no corpus: {}", directory.display()) };
        let mut files: Vec<PathBuf> = listed.flatten().map(|file| file.path()).collect();
        files.sort();
        assert!(!files.is_empty() && files.len() <= MAX_FILES, "{target}: {} files", files.len());
        let mut bytes = 0;
        for file in files {
            let Ok(data) = fs::read(&file) else { panic!("{} can't be read", file.display()) };
            bytes += data.len() as u64;
            println!("{}", file.display());
            check(&data);
        }
        assert!(bytes <= MAX_BYTES, "{target}: {bytes} bytes");
    }
}

#[test]
fn every_check_is_a_target_and_every_target_a_check() {
    let Ok(listed) = fs::read_dir(fuzz().join("fuzz_targets")) else { panic!("no targets") };
    let files: BTreeSet<String> =
        listed.flatten().filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned())).collect();
    let checks: BTreeSet<String> = checks::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, checks);
    let Ok(manifest) = fs::read_to_string(fuzz().join("Cargo.toml")) else { panic!("no manifest") };
    let target = |line: &str| Some(line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\"")?.to_owned());
    assert_eq!(manifest.lines().filter_map(target).collect::<BTreeSet<_>>(), checks);
}
