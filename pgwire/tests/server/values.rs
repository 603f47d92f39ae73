//! Parameters and values.

use bytes::BytesMut;
use forebay_pgwire::types::FromColumn;
use forebay_pgwire::{ColumnProblem, Connection, Error, Param, Row, oid};

use crate::common::with_server;

const UUID: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];

const TEXTS: [&str; 7] =
    ["", "plain", "it's", r#"back\slash "double" {braces}, comma"#, "NULL", "žluťoučký 日本 🦀\u{10ffff}", "\t\n\u{1}"];

async fn one(conn: &mut Connection, sql: &str, param: Param<'_>) -> Row {
    let mut rows = conn.query_once(sql, &[param]).await.unwrap();
    assert_eq!(rows.len(), 1);
    rows.pop().unwrap()
}

/// Sends a value as a parameter. Returns a row with the value, and with the server's text for it.
async fn echo(conn: &mut Connection, param: Param<'_>) -> Row {
    one(conn, "SELECT $1, $1::text", param).await
}

#[test]
fn scalars_come_back_as_they_went() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        for value in [true, false] {
            let row = echo(&mut conn, Param::Bool(value)).await;
            assert_eq!((row.get_bool(0).unwrap(), row.get_str(1).unwrap()), (value, value.to_string().as_str()));
        }
        for value in [0, 1, -1, i32::MIN, i32::MAX] {
            let row = echo(&mut conn, Param::I32(value)).await;
            assert_eq!((row.get_i32(0).unwrap(), row.get_str(1).unwrap()), (value, value.to_string().as_str()));
            assert_eq!(row.get_i64(0).unwrap(), i64::from(value), "a wider type takes it too");
        }
        for value in [0, 1, -1, i64::MIN, i64::MAX] {
            let row = echo(&mut conn, Param::I64(value)).await;
            assert_eq!((row.get_i64(0).unwrap(), row.get_str(1).unwrap()), (value, value.to_string().as_str()));
        }
        for value in TEXTS {
            let row = echo(&mut conn, Param::Text(value)).await;
            assert_eq!((row.get_str(0).unwrap(), row.get_str(1).unwrap()), (value, value));
        }
        let row = echo(&mut conn, Param::Uuid(UUID)).await;
        assert_eq!(row.get_uuid(0).unwrap(), UUID);
        assert_eq!(row.get_str(1).unwrap(), "00010203-0405-0607-f8f9-fafbfcfdfeff");
        for value in [&b""[..], b"\0\x01\xff", b"'\\"] {
            assert_eq!(echo(&mut conn, Param::Bytea(value)).await.get_bytes(0).unwrap(), value);
        }
    });
}

#[test]
fn json_and_times_come_back_as_they_went() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let row = echo(&mut conn, Param::Jsonb(br#"{"a":[1,"x"]}"#)).await;
        assert_eq!(row.get_str(0).unwrap(), r#"{"a": [1, "x"]}"#);
        conn.simple("SET TIME ZONE 'UTC'").await.unwrap();
        for (unix_us, text) in [
            (0, "1970-01-01 00:00:00+00"),
            (1_767_225_599_123_456, "2025-12-31 23:59:59.123456+00"),
            (-1, "1969-12-31 23:59:59.999999+00"),
        ] {
            let row = echo(&mut conn, Param::TimestamptzUs(unix_us)).await;
            assert_eq!((row.get_timestamptz_us(0).unwrap(), row.get_str(1).unwrap()), (unix_us, text));
        }
        let rows = conn.query_once("SELECT 0.5::float8, 7::int2, 4000000000::oid, 'n'::name", &[]).await.unwrap();
        assert_eq!(rows[0].get_f64(0).unwrap(), 0.5);
        assert_eq!(rows[0].get_i32(1).unwrap(), 7);
        assert_eq!(rows[0].get_i64(2).unwrap(), 4_000_000_000);
        assert_eq!(rows[0].get_str(3).unwrap(), "n");
    });
}

async fn assert_array<'v, T>(conn: &mut Connection, param: Param<'_>, expected: &[T])
where
    T: for<'r> FromColumn<'r> + PartialEq + std::fmt::Debug,
    Vec<T>: for<'r> FromColumn<'r>,
{
    let row = echo(conn, param).await;
    assert_eq!(row.get::<Vec<T>>(0).unwrap(), expected);
}

#[test]
fn arrays_of_every_type_come_back_as_they_went_empty_ones_too() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let (i32s, i64s) = ([i32::MIN, 0, i32::MAX], [i64::MIN, 0, i64::MAX]);
        assert_array(&mut conn, Param::I32Array(&i32s), &i32s).await;
        assert_array(&mut conn, Param::I32Array(&[]), &[] as &[i32]).await;
        assert_array(&mut conn, Param::I64Array(&i64s), &i64s).await;
        assert_array(&mut conn, Param::I64Array(&[]), &[] as &[i64]).await;
        assert_array(&mut conn, Param::UuidArray(&[UUID, [0; 16]]), &[UUID, [0; 16]]).await;
        assert_array(&mut conn, Param::UuidArray(&[]), &[] as &[[u8; 16]]).await;
        for texts in [&TEXTS[..], &[]] {
            let row = echo(&mut conn, Param::TextArray(texts)).await;
            assert_eq!(row.get_str_array(0).unwrap(), texts);
        }
        for values in [&[&b"\0\xff"[..], b""][..], &[]] {
            let row = echo(&mut conn, Param::ByteaArray(values)).await;
            assert_eq!(row.get::<Vec<&[u8]>>(0).unwrap(), values);
        }
        let many: Vec<i64> = (0..100_000).collect();
        let row = one(&mut conn, "SELECT sum(n)::bigint FROM unnest($1) AS n", Param::I64Array(&many)).await;
        assert_eq!(row.get_i64(0).unwrap(), many.iter().sum::<i64>());
    });
}

#[test]
fn a_null_may_stand_for_any_value_and_for_any_element() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        for null in [
            Param::from(None::<bool>),
            Param::from(None::<i32>),
            Param::from(None::<i64>),
            Param::from(None::<&str>),
            Param::from(None::<[u8; 16]>),
            Param::from(None::<&[u8]>),
            Param::from(None::<&[i32]>),
            Param::from(None::<&[i64]>),
            Param::from(None::<&[&str]>),
            Param::from(None::<&[[u8; 16]]>),
            Param::from(None::<&[&[u8]]>),
        ] {
            let row = one(&mut conn, "SELECT $1, $1 IS NULL", null).await;
            assert_eq!(row.columns()[0].type_oid, null.oid());
            assert_eq!((row.raw(0).unwrap(), row.get_bool(1).unwrap()), (None, true), "{null:?}");
        }
        let row = echo(&mut conn, Param::I32OptArray(&[None, Some(1)])).await;
        assert_eq!(row.get::<Vec<Option<i32>>>(0).unwrap(), [None, Some(1)]);
        assert_eq!(row.get_str(1).unwrap(), "{NULL,1}");
        let row = echo(&mut conn, Param::I64OptArray(&[Some(2), None])).await;
        assert_eq!(row.get::<Vec<Option<i64>>>(0).unwrap(), [Some(2), None]);
        let row = echo(&mut conn, Param::TextOptArray(&[None, Some("NULL")])).await;
        assert_eq!(row.get::<Vec<Option<&str>>>(0).unwrap(), [None, Some("NULL")]);
        let row = echo(&mut conn, Param::UuidOptArray(&[Some(UUID), None])).await;
        assert_eq!(row.get::<Vec<Option<[u8; 16]>>>(0).unwrap(), [Some(UUID), None]);
        let row = echo(&mut conn, Param::ByteaOptArray(&[None, Some(b"x")])).await;
        assert_eq!(row.get::<Vec<Option<&[u8]>>>(0).unwrap(), [None, Some(&b"x"[..])]);
        assert!(matches!(row.get::<Vec<&[u8]>>(0), Err(Error::Column(error)) if error.problem == ColumnProblem::Null));
    });
}

#[test]
fn a_value_that_was_encoded_before_arrives_as_it_was() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let mut bytes = BytesMut::new();
        for param in [Param::I64(-7), Param::Text("é"), Param::Uuid(UUID), Param::TextArray(&["a", ""])] {
            bytes.clear();
            assert!(param.encode(&mut bytes).unwrap());
            let encoded = Param::Encoded { oid: param.oid(), value: &bytes };
            assert_eq!(echo(&mut conn, encoded).await, echo(&mut conn, param).await, "{param:?}");
        }
        bytes.clear();
        assert!(!Param::Null(oid::INT8).encode(&mut bytes).unwrap() && bytes.is_empty());
    });
}

#[test]
fn arrays_serve_any_and_unnest() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let rows = conn
            .query_once(
                "SELECT id, name FROM unnest($1::bigint[], $2::text[]) AS t(id, name) WHERE id = ANY($3) ORDER BY id",
                &[
                    Param::I64Array(&[3, 1, 2]),
                    Param::TextOptArray(&[Some("three"), Some("o'ne"), None]),
                    Param::I64Array(&[1, 2]),
                ],
            )
            .await
            .unwrap();
        let got: Vec<_> = rows.iter().map(|row| (row.get_i64(0).unwrap(), row.get_opt_str(1).unwrap())).collect();
        assert_eq!(got, [(1, Some("o'ne")), (2, None)]);
    });
}

#[test]
fn a_column_that_is_something_else_is_a_typed_error() {
    fn problem<T: std::fmt::Debug>(result: Result<T, Error>) -> ColumnProblem {
        match result {
            Err(Error::Column(error)) => error.problem,
            other => panic!("{other:?}"),
        }
    }
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let sql = "SELECT 1::int8, NULL::int8, 'x'::text, ARRAY[[1, 2], [3, 4]], now()";
        let row = conn.query_once(sql, &[]).await.unwrap().pop().unwrap();
        assert_eq!(problem(row.get_i32(0)), ColumnProblem::WrongType { type_oid: oid::INT8 }, "it might not fit");
        assert_eq!(problem(row.get_i64(1)), ColumnProblem::Null);
        assert_eq!(row.get_opt_i64(1).unwrap(), None);
        assert_eq!(problem(row.get_opt_i64(2)), ColumnProblem::WrongType { type_oid: oid::TEXT });
        assert_eq!(problem(row.get_str(0)), ColumnProblem::WrongType { type_oid: oid::INT8 });
        assert_eq!(problem(row.get_i32_array(3)), ColumnProblem::Malformed, "two dimensions");
        assert_eq!(problem(row.get_bool(5)), ColumnProblem::Absent);
        assert!(row.get_timestamptz_us(4).unwrap() > 1_600_000_000_000_000);
    });
}

#[test]
fn a_value_of_many_megabytes_passes_both_ways() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        let text = "€".repeat(5_000_000);
        let row = one(&mut conn, "SELECT $1 || 'x'", Param::Text(&text)).await;
        let got = row.get_str(0).unwrap();
        assert!(got.len() == text.len() + 1 && got.starts_with(&text));
    });
}
