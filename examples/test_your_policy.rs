//! A test of a custom strategy in ten lines: replicas get random histories in any order, and must show the same.
use serde_json::Value as Json;
use syncledger::projection::{Policy, Resolvers, Strategy, Verdict};

fn main() {
    syncledger::testing::assert_convergent_with(&Policy::of(Strategy::Custom("highest".into())), || {
        let mut resolvers = Resolvers::default();
        resolvers.register("highest", |dispute| {
            let number = |place: &usize| dispute.candidates.get(*place)?.value.as_ref().and_then(Json::as_i64);
            (0..dispute.candidates.len()).max_by_key(number).map_or(Verdict::Undecided, Verdict::Take)
        });
        resolvers
    });
    println!("every replica decides alike");
}
