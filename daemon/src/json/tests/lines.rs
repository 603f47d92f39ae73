use crate::json::ndjson::{lines, lines_from, whole_lines_bytes};

fn collect(body: &str) -> Vec<(u64, &str)> {
    lines(body.as_bytes()).map(|(number, line)| (number, std::str::from_utf8(line).unwrap())).collect()
}

#[test]
fn each_line_comes_with_its_number_and_blank_ones_are_counted_but_left_out() {
    assert_eq!(collect("{}\n[]\n"), [(1, "{}"), (2, "[]")]);
    assert_eq!(collect("{}\r\n\r\n \t\n\n1\r\n2"), [(1, "{}"), (5, "1"), (6, "2")]);
    assert_eq!(collect(" 1 \n"), [(1, " 1 ")]);
    assert_eq!(collect("1\r"), [(1, "1")]);
    assert_eq!(collect(""), []);
    assert_eq!(collect("\n\r\n\r"), []);
}

#[test]
fn a_stream_taken_in_parts_gives_the_lines_of_the_whole() {
    let body = b"{\"a\":1}\n\n[2]\r\n3\n\"four\"";
    let whole: Vec<_> = lines(body).map(|(number, line)| (number, line.to_vec())).collect();
    for part_bytes in 1..body.len() {
        let (mut kept, mut taken, mut next_line) = (Vec::new(), Vec::new(), 1);
        for part in body.chunks(part_bytes) {
            kept.extend_from_slice(part);
            let cut = whole_lines_bytes(&kept);
            let mut iterator = lines_from(&kept[..cut], next_line);
            taken.extend(iterator.by_ref().map(|(number, line)| (number, line.to_vec())));
            next_line = iterator.next_line();
            kept.drain(..cut);
        }
        taken.extend(lines_from(&kept, next_line).map(|(number, line)| (number, line.to_vec())));
        assert_eq!(taken, whole, "parts of {part_bytes}");
    }
}
