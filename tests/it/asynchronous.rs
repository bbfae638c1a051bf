//! The asynchronous handle.

use serde_json::json;
use syncledger::ErrorKind;
use syncledger::ledger::{AsyncLedger, Context, Options, Store};

fn ledger() -> AsyncLedger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_write_and_one_follows() {
    let ledger = ledger();
    let mut following = ledger.subscribe(0, 4);
    let writers: Vec<_> = (0..16)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(
                async move { ledger.put("c", &format!("k{n}"), json!({ "n": n }), Context::default()).await },
            )
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    for position in 1..=16 {
        assert_eq!(following.recv().await.unwrap().unwrap().position, position);
    }
    assert_eq!(ledger.get("c", "k7").await.unwrap().unwrap().value, json!({ "n": 7 }));
    let fault = ledger.patch("c", "none", json!({}), Context::default()).await.unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn following_ends_with_the_store() {
    let ledger = ledger();
    let mut following = ledger.subscribe(0, 1);
    ledger.put("c", "k", json!({}), Context::default()).await.unwrap();
    assert!(following.recv().await.is_some());
    ledger.with(|ledger| ledger.store().close()).await.unwrap();
    assert!(following.recv().await.is_none());
}
