use super::*;
use crate::drain::round::test_records::record;
use crate::postgres::schema::obstacle::SchemaObstacle;
use forebay_pgwire::DbError;

fn batch(rows: usize) -> Batch {
    Batch::new((0..rows as u64).map(|n| record(n, "p", None, false)).collect(), Vec::new(), Vec::new())
}

/// A batch of which each row was accepted.
fn sifted(rows: usize) -> Batch {
    let mut batch = batch(rows);
    let sift = batch.take_sift();
    batch.set_sift(sift);
    batch
}

fn server(code: &str) -> Error {
    let sqlstate = SqlState::from_bytes(code.as_bytes()).unwrap();
    Error::Server(Box::new(DbError { sqlstate, message: "no".to_owned(), ..DbError::default() }))
}

fn row(code: &str, record: Option<usize>) -> RoundError {
    RoundError::Row { record, error: server(code) }
}

fn code(response: Response) -> (&'static str, WaitFor) {
    let (Response::GiveUp(hold_up) | Response::GiveBack(hold_up)) = response else { panic!("{response:?}") };
    (hold_up.code, hold_up.wait_for)
}

#[test]
fn refused_rows_are_searched_for_at_once_in_small_rounds_as_long_as_there_are_some() {
    let mut retry = RetryPolicy::new();
    assert_eq!(retry.respond(row("22P02", Some(5)), &batch(5000), true), Response::TakeFewer(Wait::No));
    assert_eq!((retry.is_sifting(), retry.rows_max()), (true, SIFT_ROWS_MAX));
    retry.committed(1);
    assert_eq!((retry.is_sifting(), retry.rows_max()), (true, SIFT_ROWS_MAX));
    (0..20).for_each(|_| retry.committed(0));
    assert_eq!((retry.is_sifting(), retry.rows_max()), (false, ROUND_ROWS_MAX), "rounds become large again");
    assert_eq!(retry.respond(row("22P02", Some(5)), &batch(8), true), Response::Repeat(Wait::No));
    let no_row = retry.respond(row("22P02", None), &batch(0), true);
    assert_eq!(code(no_row), ("postgres_refuses", WaitFor::Person));
}

#[test]
fn rows_of_which_each_was_accepted_alone_are_set_aside_or_taken_apart() {
    let mut retry = RetryPolicy::new();
    let refusal = RowRefusal { sqlstate: "23P01".to_owned(), error: "no".to_owned() };
    let named = retry.respond(row("23P01", Some(5)), &sifted(8), true);
    assert_eq!(named, Response::SetAside { record: 5, refusal: refusal.clone() });
    for expected in [4, 2, 1] {
        let response = retry.respond(row("23P01", None), &sifted(2 * expected), true);
        assert_eq!((response, retry.rows_max()), (Response::TakeFewer(Wait::No), expected));
    }
    let single = retry.respond(row("23P01", None), &sifted(1), true);
    assert_eq!(single, Response::SetAside { record: 0, refusal });
    let response = retry.respond(row("57014", None), &sifted(10), true);
    assert_eq!((response, retry.rows_max()), (Response::TakeFewer(Wait::BackOff), 5));
    assert_eq!(code(retry.respond(row("53100", None), &sifted(1), true)), ("postgres_away", WaitFor::Postgres));
}

#[test]
fn rows_are_suspected_of_an_error_that_may_be_the_server_s_only_when_it_comes_again() {
    for sqlstate in ["XX000", "55000", "53400", "0A000", "42P01", "40001"] {
        let mut retry = RetryPolicy::new();
        for attempt in 0..2 {
            let response = retry.respond(row(sqlstate, Some(0)), &batch(2), true);
            assert_eq!((response, retry.is_sifting()), (Response::Repeat(Wait::No), attempt == 1), "{sqlstate}");
        }
        retry.committed(0);
        assert!(!retry.is_sifting());
        retry.respond(row(sqlstate, Some(0)), &batch(2), true);
        assert!(!retry.is_sifting(), "after a commit it is the first one again");
    }
}

#[test]
fn rows_that_take_too_long_are_suspected_at_once_and_for_some_rounds_after_one_was_set_aside() {
    let mut retry = RetryPolicy::new();
    let response = retry.respond(row("57014", None), &batch(2 * SIFT_ROWS_MAX), true);
    assert_eq!((response, retry.rows_max()), (Response::TakeFewer(Wait::No), SIFT_ROWS_MAX));
    assert!(retry.is_sifting());
    retry.committed(0);
    assert!(!retry.is_sifting(), "none was refused");
    for is_first in [true, false] {
        if is_first {
            retry.respond(row("57014", None), &batch(2), true);
        }
        retry.committed(1);
        for _ in 1..SIFTS_AFTER_TIMEOUT {
            retry.committed(0);
            assert!(retry.is_sifting());
        }
    }
    retry.committed(0);
    assert!(!retry.is_sifting());
}

#[test]
fn rows_are_suspected_when_sessions_are_lost_one_after_the_other() {
    let mut retry = RetryPolicy::new();
    for attempt in 1..=SUSPICIOUS_LOSSES {
        let lost = retry.respond(RoundError::Postgres(Error::Closed), &batch(3), false);
        assert_eq!(code(lost), ("postgres_away", WaitFor::Postgres));
        assert_eq!(retry.is_sifting(), attempt == SUSPICIOUS_LOSSES);
    }
}

#[test]
fn what_fails_alone_is_tried_again_soon_and_where_nothing_is_accepted_more_rows_are_taken() {
    let mut retry = RetryPolicy::new();
    let suspected = RoundError::Undecided(Obstacle::of(&server("XX000")));
    assert_eq!(retry.respond(suspected, &batch(3), true), Response::Repeat(Wait::Short));
    retry.respond(row("22P02", None), &batch(5000), true);
    let none = RoundError::NoneAccepted(Obstacle::of(&server("53100")));
    assert_eq!(code(retry.respond(none, &batch(1000), true)), ("postgres_away", WaitFor::Postgres));
    assert_eq!((retry.rows_max(), retry.is_sifting()), (2 * SIFT_ROWS_MAX, true));
}

#[test]
fn what_passes_by_itself_is_repeated_at_once_a_few_times_and_then_after_a_pause() {
    let postgres: fn() -> RoundError = || RoundError::Postgres(server("40P01"));
    for (error, is_told) in [(|| RoundError::NumberingChanged) as fn() -> _, || RoundError::PartitionGone, postgres]
        .into_iter()
        .zip([false, false, true])
    {
        let mut retry = RetryPolicy::new();
        for _ in 0..REPEATS_AT_ONCE {
            assert_eq!(retry.respond(error(), &batch(1), true), Response::Repeat(Wait::No));
        }
        let response = retry.respond(error(), &batch(1), true);
        if is_told {
            assert_eq!(code(response), ("postgres_away", WaitFor::Postgres));
        } else {
            assert_eq!(response, Response::Repeat(Wait::BackOff));
        }
        retry.committed(0);
        assert_eq!(retry.respond(error(), &batch(1), true), Response::Repeat(Wait::No));
    }
    let mut retry = RetryPolicy::new();
    let cancelled = retry.respond(RoundError::Postgres(server("57014")), &batch(10), true);
    assert_eq!(cancelled, Response::Repeat(Wait::No));
    let cancelled = retry.respond(RoundError::Postgres(server("57014")), &batch(100), true);
    assert_eq!((cancelled, retry.rows_max()), (Response::TakeFewer(Wait::BackOff), 50));
    let lost = retry.respond(RoundError::Postgres(server("40P01")), &batch(1), false);
    assert_eq!(code(lost), ("postgres_away", WaitFor::Postgres));
}

#[test]
fn what_a_person_must_see_to_is_told_with_its_code_and_what_the_checkpoint_knows_is_read_again() {
    let mut retry = RetryPolicy::new();
    let mut respond = |error| retry.respond(error, &batch(1), true);
    assert_eq!(respond(RoundError::CheckpointMoved), Response::Reconnect);
    let person = |code| (code, WaitFor::Person);
    assert_eq!(code(respond(RoundError::CountDiffers { sent: 2, taken: 1 })), person("copy_count_differs"));
    let full = std::io::ErrorKind::StorageFull.into();
    assert_eq!(code(respond(RoundError::LettersNotKept(full))), person("dead_letters_not_kept"));
    assert_eq!(code(respond(RoundError::UnknownRow { index: -1 })), person("postgres_refuses"));
    let unfilled = SchemaObstacle::Unfilled { column: "tenant".to_owned() };
    assert_eq!(code(respond(RoundError::NoRowFits(unfilled))), person("schema_takes_no_row"));
    assert_eq!(code(respond(RoundError::NoneAccepted(Obstacle::not_created()))), person("postgres_refuses"));
    assert_eq!(code(respond(RoundError::Postgres(server("42P01")))), person("postgres_refuses"));
    assert_eq!(code(respond(RoundError::Postgres(Error::Closed))), ("postgres_away", WaitFor::Postgres));
}
