//! Answers: back and forth, and their bounds.

use super::*;

#[test]
fn answers_come_back() {
    let ok = OkPacket { affected_rows: 300, last_insert_id: 0, status: 2, warnings: 1 };
    for response in [
        Response::Ok(ok),
        Response::Err(ServerError::new(1045, "28000", "Access denied")),
        Response::Eof,
        Response::AuthSwitch { method: "client_ed25519".into(), data: vec![1; 32] },
        Response::AuthMore(vec![4]),
    ] {
        let bytes = response.encode();
        let login = matches!(response, Response::AuthSwitch { .. } | Response::AuthMore(_));
        let back = if login { Response::decode_login(&bytes) } else { Response::decode(&bytes) };
        assert!(back.unwrap() == response, "{response:?}");
    }
    assert!(Response::decode(&[0xfb, b'x']).is_err(), "a wish for a local file is no answer");
    assert!(Response::decode(&[]).is_err());
}

#[test]
fn an_error_reads_as_the_server_meant_it() {
    let error = ServerError::decode(b"\xff\xd4\x04#HY000Could not find first log file").unwrap();
    assert_eq!(error, ServerError::new(1236, "HY000", "Could not find first log file"));
    assert_eq!(error.to_string(), "Could not find first log file (error 1236, SQLSTATE HY000)");
    let early = ServerError::new(1040, "08004", "Too many connections").encode_greeting();
    assert_eq!(early, b"\xff\x10\x04Too many connections");
    let long = ServerError::new(1, "HY000", "x".repeat(60_000)).encode();
    assert_eq!(ServerError::decode(&long).unwrap().message.len(), MAX_MESSAGE);
}

fn read(packets: &[Vec<u8>]) -> Result<Option<TextResult>, RowsError> {
    let mut rows = TextRows::new();
    for (n, packet) in packets.iter().enumerate() {
        if let Some(result) = rows.received(packet)? {
            assert_eq!(n + 1, packets.len(), "nothing follows the end");
            return Ok(Some(result));
        }
    }
    Ok(None)
}

#[test]
fn rows_come_back() {
    let result = TextResult {
        columns: vec!["Variable_name".into(), "Value".into()],
        rows: vec![
            vec![Some(b"server_id".to_vec()), Some(b"1".to_vec())],
            vec![None, Some(Vec::new())],
            vec![Some(vec![b'x'; 70_000]), None],
        ],
    };
    assert_eq!(read(&result.encode()).unwrap().unwrap(), result);
    assert_eq!(result.single(), Some(&b"server_id"[..]));
    let empty = TextResult { columns: vec!["a".into()], rows: Vec::new() };
    assert_eq!(read(&empty.encode()).unwrap().unwrap(), empty);
    assert_eq!(read(&[Response::Ok(OkPacket::default()).encode()]).unwrap(), Some(TextResult::default()));
}

#[test]
fn answers_over_the_bounds_are_refused() {
    assert!(matches!(read(&[vec![0xfc, 0xff, 0xff]]), Err(RowsError::TooMuch { .. })));
    let row = vec![Some(b"x".to_vec())];
    let many = TextResult { columns: vec!["a".into()], rows: vec![row; MAX_ROWS + 1] };
    assert_eq!(read(&many.encode()), Err(RowsError::TooMuch { what: "rows", limit: MAX_ROWS }));
    let row = vec![Some(vec![0; MAX_RESPONSE - 16])];
    let heavy = TextResult { columns: vec!["a".into()], rows: vec![row; 20] };
    assert_eq!(read(&heavy.encode()), Err(RowsError::TooMuch { what: "bytes", limit: MAX_ALL_ROWS }));
    assert_eq!(read(&[vec![LOCAL_INFILE, b'/']]), Err(RowsError::WantsFile));
}

#[test]
fn an_error_in_the_middle_of_rows_is_the_answer() {
    let result = TextResult { columns: vec!["a".into()], rows: vec![vec![Some(b"1".to_vec())]] };
    let mut packets = result.encode();
    let error = ServerError::new(1317, "70100", "Query execution was interrupted");
    *packets.last_mut().unwrap() = error.encode();
    assert_eq!(read(&packets), Err(RowsError::Refused(error)));
}
