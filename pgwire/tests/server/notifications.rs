//! LISTEN, and waiting for notifications.

use std::time::{Duration, Instant};

use forebay_pgwire::{Error, Param, SqlState};

use crate::common::with_server;

const MOMENT: Duration = Duration::from_millis(100);

/// Much longer than a busy machine needs.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_notification_ends_the_wait_and_says_who_and_what() {
    with_server(|server| async move {
        let mut listener = server.connect().await;
        let mut ringer = server.connect().await;
        listener.simple("LISTEN a_bell").await.unwrap();
        let (heard, ()) = monoio::join!(listener.wait_for_notification(Some(LONG)), async {
            monoio::time::sleep(MOMENT).await;
            ringer.simple("NOTIFY a_bell, 'ding'; NOTIFY a_bell, 'dong'").await.unwrap();
        });
        let heard = heard.unwrap().unwrap();
        assert_eq!((heard.channel.as_str(), heard.payload.as_str()), ("a_bell", "ding"));
        assert_eq!(Some(heard.process_id), ringer.process_id());
        assert_eq!(listener.wait_for_notification(Some(LONG)).await.unwrap().unwrap().payload, "dong");
        assert_eq!(listener.wait_for_notification(Some(MOMENT)).await.unwrap(), None);
    });
}

#[test]
fn one_that_came_with_an_answer_is_given_without_waiting() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("LISTEN own_bell; NOTIFY own_bell, 'mine'").await.unwrap();
        assert_eq!(conn.wait_for_notification(None).await.unwrap().unwrap().payload, "mine");
    });
}

#[test]
fn a_wait_that_is_over_or_dropped_leaves_the_connection_usable() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("LISTEN quiet_bell").await.unwrap();
        let began = Instant::now();
        assert_eq!(conn.wait_for_notification(Some(MOMENT)).await.unwrap(), None);
        assert!(began.elapsed() >= MOMENT);
        assert!(monoio::time::timeout(MOMENT, conn.wait_for_notification(None)).await.is_err());
        assert!(!conn.is_broken());
        conn.simple("NOTIFY quiet_bell").await.unwrap();
        assert!(conn.wait_for_notification(None).await.unwrap().is_some(), "nothing was lost");
    });
}

#[test]
fn a_session_that_is_ended_meanwhile_says_why() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let mut killer = server.connect().await;
        let process_id = conn.process_id().unwrap();
        let (result, ()) = monoio::join!(conn.wait_for_notification(None), async {
            monoio::time::sleep(MOMENT).await;
            killer.query_once("SELECT pg_terminate_backend($1)", &[Param::I32(process_id)]).await.unwrap();
        });
        let error = result.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::ADMIN_SHUTDOWN), "{error}");
        assert!(conn.is_broken());
        assert!(matches!(conn.wait_for_notification(None).await, Err(Error::Closed)));
    });
}
