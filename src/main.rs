//! The `syncledger` program.
fn main() {}
