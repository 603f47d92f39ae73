use super::*;

const CREATED: &[u8] =
    b"HTTP/1.1 201 Created\r\ncontent-length: 15\r\nForebay-Durability: disk\r\n\r\n{\"pushed\":true}";

fn refuse(bytes: &[u8]) -> ResponseError {
    parse(bytes).unwrap_err()
}

#[test]
fn a_response_split_anywhere_is_incomplete_until_its_last_byte() {
    for end in 0..CREATED.len() {
        assert_eq!(parse(&CREATED[..end]), Ok(None), "after {end} bytes");
    }
    let response = parse(CREATED).unwrap().unwrap();
    assert_eq!(response.status, 201);
    assert_eq!(&CREATED[response.body.clone()], b"{\"pushed\":true}");
    assert_eq!(response.len_bytes(), CREATED.len());
    assert!(response.is_success() && !response.closes);
}

#[test]
fn pipelined_responses_are_parsed_one_by_one() {
    let mut buffer = CREATED.repeat(3);
    buffer.extend_from_slice(&CREATED[..10]);
    let mut at = 0;
    for _ in 0..3 {
        at += parse(&buffer[at..]).unwrap().unwrap().len_bytes();
    }
    assert_eq!(at, 3 * CREATED.len());
    assert_eq!(parse(&buffer[at..]), Ok(None));
}

#[test]
fn interim_responses_are_skipped_wherever_they_are_split() {
    let mut bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".to_vec();
    bytes.extend_from_slice(CREATED);
    for end in 0..bytes.len() {
        assert_eq!(parse(&bytes[..end]), Ok(None), "after {end} bytes");
    }
    let response = parse(&bytes).unwrap().unwrap();
    assert_eq!((response.status, response.len_bytes()), (201, bytes.len()));
}

#[test]
fn responses_that_never_have_a_body_need_no_length() {
    let bytes = b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\nHTTP";
    assert_eq!(parse(bytes).unwrap().unwrap().len_bytes(), bytes.len() - 4);
    assert_eq!(refuse(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"), ResponseError::NoLength);
    assert_eq!(parse(b"HTTP/1.1 200\r\nContent-Length:0\r\n\r\n").unwrap().unwrap().status, 200);
}

#[test]
fn the_connection_header_and_the_version_determine_whether_the_server_closes() {
    let closes = |head: &str| parse(format!("{head}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap().unwrap().closes;
    assert!(!closes("HTTP/1.1 200 OK"));
    assert!(closes("HTTP/1.1 200 OK\r\nCONNECTION: foo, Close"));
    assert!(closes("HTTP/1.0 200 OK"));
    assert!(!closes("HTTP/1.0 200 OK\r\nConnection: keep-alive"));
}

#[test]
fn bytes_that_are_not_a_response_are_refused() {
    assert_eq!(refuse(b"SSH-2.0-x\r\n\r\n"), ResponseError::StatusLine);
    assert_eq!(refuse(b"HTTP/2.0 200 OK\r\n\r\n"), ResponseError::StatusLine);
    assert_eq!(refuse(b"HTTP/1.1 20 OK\r\n\r\n"), ResponseError::StatusLine);
    assert_eq!(refuse(b"HTTP/1.1 2000 OK\r\n\r\n"), ResponseError::StatusLine);
    assert_eq!(refuse(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), ResponseError::Header);
    assert_eq!(refuse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), ResponseError::TransferEncoding);
    assert_eq!(refuse(&vec![b'a'; MAX_HEAD_BYTES + 1]), ResponseError::HeadTooLong);
}

#[test]
fn lengths_must_be_one_number_within_bounds() {
    let with = |lines: &str| refuse(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n").as_bytes());
    assert_eq!(with("Content-Length: +1"), ResponseError::ContentLength);
    assert_eq!(with("Content-Length: "), ResponseError::ContentLength);
    assert_eq!(with("Content-Length: 1\r\nContent-Length: 2"), ResponseError::ContentLength);
    assert_eq!(with("Content-Length: 99999999999999999999999999"), ResponseError::BodyTooLong);
}
