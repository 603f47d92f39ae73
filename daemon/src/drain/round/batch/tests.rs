use super::*;
use crate::drain::round::test_records::{record, record_of};

fn batch(records: Vec<LogRecord>) -> Batch {
    Batch::new(records, Vec::new(), Vec::new())
}

fn duplicate(of: u128) -> RowOutcome {
    RowOutcome::Duplicate { of: Uuid::from_u128(of) }
}

#[test]
fn repeats_are_found_per_partition_and_the_first_one_stands() {
    let mut batch = batch(vec![
        record(1, "a", Some("x"), false),
        record(2, "b", Some("x"), false),
        record(3, "a", Some("x"), true),
        record(4, "a", None, true),
        record(5, "a", None, true),
    ]);
    batch.find_repeats();
    assert_eq!(batch.outcomes, [RowOutcome::Row, RowOutcome::Row, duplicate(1), RowOutcome::Row, RowOutcome::Row]);
    assert_eq!(batch.copy_order().collect::<Vec<_>>(), [0, 3, 4, 1]);
    let deliveries = &batch.deliveries(1)[0];
    let numbers: Vec<_> = deliveries.iter().map(|delivery| delivery.number).collect();
    assert_eq!(numbers, [3, 4, 5], "only those who wait are told");
    assert_eq!(deliveries[0].fate, Fate::Duplicate { of: Uuid::from_u128(1) });
}

#[test]
fn a_refused_message_is_a_repeat_only_of_an_earlier_one_that_becomes_a_row() {
    let mut batch = batch((1..=4).map(|number| record(number, "a", Some("x"), false)).collect());
    let refusal = || RowRefusal { sqlstate: "22P02".to_owned(), error: String::new() };
    batch.refuse(0, refusal());
    batch.refuse(2, refusal());
    batch.find_repeats();
    let refused = RowOutcome::Refused(Box::new(refusal()));
    assert_eq!(batch.outcomes, [refused, RowOutcome::Row, duplicate(2), duplicate(2)]);
}

#[test]
fn a_repeat_of_a_message_that_postgresql_has_already_names_the_stored_one() {
    let mut batch =
        batch(vec![record(1, "a", Some("x"), true), record(2, "a", Some("x"), true), record(3, "a", Some("y"), true)]);
    batch.find_repeats();
    batch.set_duplicates(&[(0, Uuid::from_u128(77))]);
    assert_eq!(batch.outcomes, [duplicate(77), duplicate(77), RowOutcome::Row]);
    assert_eq!(batch.duplicates(), 2);
    batch.forget_duplicates();
    assert_eq!(batch.copy_order().count(), 3);
}

#[test]
fn records_stand_by_partition_however_they_are_mixed_and_names_do_not_run_together() {
    let names = ["a", "", "ab", "b", "a b"];
    let name_of = |n: u64| names[(n * n % 7) as usize % names.len()];
    let batch = batch((0..100).map(|n| record(n, name_of(n), None, false)).collect());
    let partitions = batch.groups().partitions();
    let met: Vec<&[u8]> = partitions.iter().map(|partition| batch.first_of(partition).1.partition()).collect();
    assert_eq!(met, [&b"a"[..], b"", b"a b", b"ab"], "in the order of their first messages");
    for partition in partitions {
        let name = batch.first_of(partition).1.partition();
        let expected: Vec<usize> = (0..100).filter(|&n| name_of(n as u64).as_bytes() == name).collect();
        assert_eq!(batch.rows(partition).map(|row| row.index).collect::<Vec<_>>(), expected);
        assert_eq!(batch.groups().name(partition), [b"q\xff", name].concat());
    }
    assert_eq!(batch.copy_order().count(), 100);
}

#[test]
fn a_record_that_is_no_message_is_set_aside_and_its_neighbours_are_not() {
    let records = vec![record(1, "a", None, false), record_of(2, vec![99]), record(3, "a", None, false)];
    let batch = batch(records);
    assert_eq!(batch.copy_order().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(batch.refused().map(|(index, _)| index).collect::<Vec<_>>(), [1]);
}
