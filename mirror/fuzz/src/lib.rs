//! What must hold for any bytes whatever, as functions that panic where it does not. The fuzz targets
//! call them, and so does `mirror/tests/decoders.rs`; nothing here knows who does.

mod capture;
mod login;
mod player;
pub mod session;
mod statement;
mod traffic_log;
mod wire;

/// A check of any bytes whatever.
pub type Check = fn(&[u8]);

/// Every target by its name, which is that of its corpus as well.
pub const TARGETS: [(&str, Check); 16] = [
    ("backend", wire::backend),
    ("digest", capture::digest),
    ("encode", wire::encode),
    ("frames", wire::frames),
    ("frontend", wire::frontend),
    ("lexer", statement::lexer),
    ("login", login::login),
    ("plan", statement::plan),
    ("player", player::player),
    ("record", traffic_log::record),
    ("sasl", wire::sasl),
    ("segment", traffic_log::segment),
    ("session", session::session),
    ("startup", wire::startup),
    ("template", statement::template),
    ("tracker", capture::tracker),
];

/// Runs the check of a target.
pub fn check(target: &str, data: &[u8]) {
    match TARGETS.iter().find(|(name, _)| *name == target) {
        Some((_, check)) => check(data),
        None => panic!("no target `{target}`"),
    }
}
