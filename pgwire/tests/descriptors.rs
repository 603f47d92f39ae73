//! Connections leave no file descriptor open, however they end. The test has its own process, because it counts the
//! descriptors of the process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails as a test does: by a panic")]

mod common;

use std::time::Duration;

use forebay_pgwire::{Connection, Error, SearchPath};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until no more descriptors are open than before. The runtime closes them with operations of the ring.
async fn wait_until_closed(before: usize) {
    while open_descriptors() > before {
        monoio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn connections_that_end_leave_no_descriptor_behind() {
    common::with_server(|server| async move {
        for config in [server.config(), server.tcp_config(common::SUPERUSER, None)] {
            // The first connection may open descriptors that stay open, such as the runtime's.
            drop(server.connect().await);
            monoio::time::sleep(Duration::from_millis(100)).await;
            let before = open_descriptors();
            for _ in 0..20 {
                let mut used = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
                used.simple("SELECT 1").await.unwrap();

                let mut late = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
                late.set_deadline(Some(Duration::from_millis(5)));
                let result = late.simple("SELECT pg_sleep(60)").await;
                assert!(matches!(result, Err(Error::Timeout { .. })));

                let mut cut_off = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
                let dropped = monoio::time::timeout(Duration::from_millis(5), cut_off.simple("SELECT pg_sleep(60)"));
                assert!(dropped.await.is_err());

                let token = used.cancel_token();
                token.cancel().await.unwrap();
                let mut refused = config.clone();
                refused.database = Some("no such database".to_owned());
                assert!(Connection::connect(&refused, SearchPath::Inherited).await.is_err());
            }
            wait_until_closed(before).await;
        }
    });
}
