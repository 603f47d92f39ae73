//! COPY FROM STDIN.

use forebay_pgwire::{BinaryCopy, Connection, Error, SqlClass, SqlState, TransactionStatus};

use crate::common::with_server;

const TABLE: &str = "CREATE TEMP TABLE m (seq bigint PRIMARY KEY, id uuid, topic text, n int, at timestamptz, \
                     flag bool, raw bytea, payload jsonb)";

const COPY: &str = "COPY m FROM STDIN (FORMAT binary)";

fn encode_row(rows: &mut BinaryCopy, seq: i64, payload: &[u8]) {
    rows.row(8);
    rows.i64(seq);
    rows.uuid(&u128::to_be_bytes(seq as u128));
    rows.text("tø'pic");
    if seq % 2 == 0 {
        rows.i32(seq as i32)
    } else {
        rows.null()
    }
    rows.timestamptz_us(1_000_000 * seq);
    rows.bool(seq % 2 == 0);
    rows.bytea(&[0, 255]);
    rows.jsonb(payload);
}

async fn count(conn: &mut Connection) -> i64 {
    conn.query_once("SELECT count(*) FROM m", &[]).await.unwrap()[0].get_i64(0).unwrap()
}

/// Copies rows with these sequence numbers and payloads, in one piece.
async fn copy_all(conn: &mut Connection, rows: &[(i64, &[u8])]) -> Result<u64, Error> {
    let mut encoder = BinaryCopy::start();
    rows.iter().for_each(|(seq, payload)| encode_row(&mut encoder, *seq, payload));
    encoder.finish()?;
    let mut copy = conn.copy_in(COPY).await?;
    copy.write(encoder.bytes()).await?;
    copy.finish().await
}

#[test]
fn a_hundred_thousand_rows_are_copied_and_counted() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple(TABLE).await.unwrap();
        let mut encoder = BinaryCopy::start();
        let mut copy = conn.copy_in(COPY).await.unwrap();
        for seq in 0..100_000 {
            encode_row(&mut encoder, seq, format!(r#"{{"seq":{seq},"text":"ž"}}"#).as_bytes());
            if encoder.bytes().len() > 128 * 1024 {
                copy.write(encoder.bytes()).await.unwrap();
                encoder.clear();
            }
        }
        assert_eq!(encoder.finish().unwrap(), 100_000);
        copy.write(encoder.bytes()).await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), encoder.rows());
        let sql = "SELECT count(*), sum((payload->>'seq')::bigint)::bigint, count(n), \
                   bool_and(at = timestamptz '1970-01-01 00:00Z' + seq * interval '1 s'), \
                   bool_and(flag = (n IS NOT NULL)), \
                   bool_and(topic = 'tø''pic' AND raw = '\\x00ff' AND payload->>'text' = 'ž') FROM m";
        let row = conn.query_once(sql, &[]).await.unwrap().pop().unwrap();
        assert_eq!(row.get_i64(0).unwrap(), 100_000);
        assert_eq!(row.get_i64(1).unwrap(), 99_999 * 100_000 / 2);
        assert_eq!(row.get_i64(2).unwrap(), 50_000);
        assert!(row.get_bool(3).unwrap() && row.get_bool(4).unwrap() && row.get_bool(5).unwrap());
    });
}

#[test]
fn one_write_of_many_megabytes_is_cut_into_messages() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple("CREATE TEMP TABLE t (s text)").await.unwrap();
        let mut encoder = BinaryCopy::start();
        for _ in 0..3 {
            encoder.row(1);
            encoder.text(&"x".repeat(3_333_333));
        }
        encoder.finish().unwrap();
        let mut copy = conn.copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap();
        copy.write(&[]).await.unwrap();
        copy.write(encoder.bytes()).await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), 3);
    });
}

#[test]
fn a_refused_row_is_named_and_the_connection_goes_on() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple(TABLE).await.unwrap();

        let error = copy_all(&mut conn, &[(1, b"{}"), (2, b"[]"), (3, b"{\"a\":}")]).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_TEXT_REPRESENTATION), "{error}");
        assert_eq!(error.db_error().unwrap().copy_row("m"), Some(3), "{error:?}");
        assert_eq!(count(&mut conn).await, 0);

        let error = copy_all(&mut conn, &[(1, b"{}"), (2, b"\"\\u0000\"")]).await.unwrap_err();
        assert_eq!(error.sqlstate().unwrap().class(), SqlClass::DATA_EXCEPTION, "{error}");
        assert_eq!(error.db_error().unwrap().copy_row("m"), Some(2), "{error:?}");

        let error = copy_all(&mut conn, &[(1, b"{}"), (1, b"{}")]).await.unwrap_err();
        let said = error.db_error().unwrap();
        assert_eq!(said.sqlstate, SqlState::UNIQUE_VIOLATION);
        assert_eq!((said.copy_row("m"), said.constraint.as_deref()), (Some(2), Some("m_pkey")), "{error:?}");
        assert!(said.context.as_deref().is_some_and(|context| context.starts_with("COPY m, line 2")));

        assert_eq!(copy_all(&mut conn, &[(1, b"{}"), (2, b"{}")]).await.unwrap(), 2);
        assert_eq!(count(&mut conn).await, 2);
    });
}

#[test]
fn a_refusal_is_noticed_long_before_everything_is_sent() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple(TABLE).await.unwrap();
        let mut encoder = BinaryCopy::start();
        encode_row(&mut encoder, 1, b"nonsense");
        let mut copy = conn.copy_in(COPY).await.unwrap();
        copy.write(encoder.bytes()).await.unwrap();
        let filler = vec![0; 1024 * 1024];
        let mut sent_mib = 0;
        let error = loop {
            match copy.write(&filler).await {
                Ok(()) => sent_mib += 1,
                Err(error) => break error,
            }
            assert!(sent_mib < 1024, "a GiB went into a COPY that had failed");
        };
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_TEXT_REPRESENTATION), "{error}");
        assert!(matches!(copy.write(&filler).await, Err(Error::Usage { .. })), "it is over");
        assert!(matches!(copy.finish().await, Err(Error::Usage { .. })));
        assert!(!conn.is_broken());
        assert_eq!(count(&mut conn).await, 0);
    });
}

#[test]
fn an_aborted_copy_leaves_no_row_and_a_usable_connection() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple(TABLE).await.unwrap();
        let mut encoder = BinaryCopy::start();
        (0..10_000).for_each(|seq| encode_row(&mut encoder, seq, b"{}"));
        let mut copy = conn.copy_in(COPY).await.unwrap();
        copy.write(encoder.bytes()).await.unwrap();
        copy.abort("changed my\0mind").await.unwrap();
        assert_eq!(count(&mut conn).await, 0);

        conn.simple("BEGIN").await.unwrap();
        conn.copy_in(COPY).await.unwrap().abort("at once").await.unwrap();
        assert_eq!(conn.transaction_status(), TransactionStatus::Failed);
        conn.simple("ROLLBACK").await.unwrap();
        assert_eq!(count(&mut conn).await, 0);
    });
}

#[test]
fn a_dropped_copy_leaves_the_connection_broken() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple(TABLE).await.unwrap();
        drop(conn.copy_in(COPY).await.unwrap());
        assert!(conn.is_broken());
        assert!(matches!(conn.simple("SELECT 1").await, Err(Error::Closed)));
    });
}

#[test]
fn a_copy_that_cannot_begin_is_an_error_of_the_server() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let error = conn.copy_in("COPY nowhere FROM STDIN").await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::UNDEFINED_TABLE), "{error}");
        assert!(matches!(conn.copy_in("COPY \0").await.unwrap_err(), Error::Usage { .. }));
        conn.simple(TABLE).await.unwrap();
        let error = conn.copy_in("SELECT 1").await.unwrap_err();
        assert!(matches!(error, Error::Protocol(_)) && conn.is_broken(), "{error}");
    });
}

#[test]
fn rows_that_raise_notices_do_not_stall_the_copy() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        conn.simple(
            "CREATE TEMP TABLE t (n bigint);
             CREATE FUNCTION pg_temp.shout() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE NOTICE '%', repeat('!', 2000); RETURN NEW; END $$;
             CREATE TRIGGER shout BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.shout()",
        )
        .await
        .unwrap();
        let mut encoder = BinaryCopy::start();
        for n in 0..100_000 {
            encoder.row(1);
            encoder.i64(n);
        }
        encoder.finish().unwrap();
        let mut copy = conn.copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap();
        copy.write(encoder.bytes()).await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), 100_000);
        let (notices, dropped) = conn.take_notices();
        assert_eq!(notices.len() as u64 + dropped, 100_000);
    });
}
