//! RFC 9110, sections 5.6.7 and 6.6.1: the `Date` of a reply.

use super::{PATIENCE, Stage, fields::answers};

#[test]
fn every_answer_has_the_date_in_the_one_form_there_is() {
    let stage = Stage::shared();
    for (request, response) in answers(&stage) {
        let date = response.header("Date").unwrap_or_else(|| panic!("no date: {request:?}"));
        // Such as `Sun, 06 Nov 1994 08:49:37 GMT`.
        let form: String = date
            .chars()
            .map(|character| {
                if character.is_ascii_digit() {
                    '0'
                } else if character.is_ascii_alphabetic() {
                    'a'
                } else {
                    character
                }
            })
            .collect();
        assert_eq!(form, "aaa, 00 aaa 0000 00:00:00 aaa", "{date}");
        let time = humantime_of(date);
        let apart = time.abs_diff(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs());
        assert!(apart <= PATIENCE.as_secs(), "{date} is {apart} s from now");
    }
}

/// The seconds since 1970 of a date, computed independently of the daemon.
fn humantime_of(date: &str) -> u64 {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let month = MONTHS.iter().position(|month| *month == &date[8..11]).unwrap() + 1;
    let text = format!("{}-{month:02}-{}T{}Z", &date[12..16], &date[5..7], &date[17..25]);
    let time = humantime::parse_rfc3339(&text).unwrap();
    let seconds = time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(DAYS[(seconds / 86_400 % 7) as usize], &date[..3], "{date}");
    assert!(date.ends_with(" GMT"));
    seconds
}
