//! What the fuzz targets do with the bytes that they are given: each is a claim about any bytes whatever, and panics where it
//! does not hold. `cargo fuzz` searches for such bytes; the tests of the package give each target its corpus and changes of it.

mod events;
mod json;
mod logs;
mod requests;
mod sessions;

/// A target: bytes in, a panic where its claim does not hold.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 9] = [
    ("decode_event", events::decode_event),
    ("decode_segment", events::decode_segment),
    ("apply_hostile", events::apply_hostile),
    ("journal_model", logs::journal_model),
    ("json_roundtrip", json::json_roundtrip),
    ("policy", json::policy),
    ("session_frames", sessions::session_frames),
    ("replication_converges", sessions::replication_converges),
    ("http_bodies", requests::http_bodies),
];

/// Gives a target bytes.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target of this name");
    target(bytes);
}
