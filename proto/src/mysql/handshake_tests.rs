//! Greetings and logins: of real servers, of ourselves, and broken ones.

use super::*;

/// Of MariaDB 10.11.19 from Debian.
fn maria() -> Greeting {
    Greeting {
        version: "5.5.5-10.11.19-MariaDB-deb12-log".to_owned(),
        connection_id: 31,
        seed: b"12345678abcdefghijkl".to_vec(),
        capabilities: 0x81ff_f7fe,
        charset: CHARSET_UTF8MB4,
        status: STATUS_AUTOCOMMIT,
        method: "mysql_native_password".to_owned(),
    }
}

#[test]
fn a_greeting_comes_back() {
    let greeting = maria();
    assert_eq!(Greeting::decode(&greeting.encode()).unwrap().unwrap(), greeting);
}

#[test]
fn the_greeting_of_a_manual_is_read() {
    // "Protocol::HandshakeV10" of MySQL's internals manual, 5.6.4.
    let bytes = b"\x0a5.6.4-m7-log\0\x56\x0a\0\0RB3vz&Gr\0\xff\xff\x08\x02\0\x0f\xc0\x15\0\0\0\0\0\0\0\0\0\0+yD&/ZZ305ZG\0mysql_native_password\0";
    let greeting = Greeting::decode(bytes).unwrap().unwrap();
    assert_eq!((greeting.version.as_str(), greeting.connection_id), ("5.6.4-m7-log", 0xa56));
    assert_eq!(greeting.seed, b"RB3vz&Gr+yD&/ZZ305ZG");
    assert_eq!((greeting.capabilities, greeting.charset, greeting.status), (0xc00f_ffff, 8, 2));
    assert_eq!(greeting.method, "mysql_native_password");
    assert_eq!(greeting.encode(), bytes);
}

#[test]
fn a_refusal_instead_of_a_greeting_is_told_apart() {
    let refusal = Greeting::decode(b"\xff\x10\x04Too many connections").unwrap().unwrap_err();
    assert_eq!((refusal.code, refusal.message.as_str()), (1040, "Too many connections"));
    assert!(Greeting::decode(b"\x09old").is_err());
    assert!(Greeting::decode(b"").is_err());
}

#[test]
fn a_login_comes_back_with_every_set_of_capabilities() {
    use capability::*;
    let optional = [CONNECT_WITH_DB, PLUGIN_AUTH, CONNECT_ATTRS, PLUGIN_AUTH_LENENC, SECURE_CONNECTION];
    for subset in 0..1u32 << optional.len() {
        let chosen = optional.iter().enumerate().filter(|(n, _)| subset & (1 << n) != 0);
        let capabilities = chosen.fold(PROTOCOL_41, |bits, (_, bit)| bits | bit);
        let has = |bit| capabilities & bit != 0;
        let login = Login {
            capabilities,
            max_packet: 1 << 24,
            charset: CHARSET_UTF8MB4,
            user: "ehpc".to_owned(),
            answer: vec![7; 20],
            database: has(CONNECT_WITH_DB).then(|| "shop".to_owned()),
            method: has(PLUGIN_AUTH).then(|| "client_ed25519".to_owned()),
            attributes: if has(CONNECT_ATTRS) { vec![("a".into(), "b".into())] } else { Vec::new() },
        };
        let bytes = login.encode();
        assert_eq!(SslRequest::decode(&bytes), None);
        assert!(Login::decode(&bytes).unwrap() == login, "{login:?}");
        for cut in 0..bytes.len() {
            let _no_panic = Login::decode(&bytes[..cut]);
        }
    }
}

#[test]
fn a_password_is_not_in_what_is_logged() {
    let login = Login {
        capabilities: capability::PROTOCOL_41,
        max_packet: 0,
        charset: 0,
        user: "u".to_owned(),
        answer: b"hunter2".to_vec(),
        database: None,
        method: None,
        attributes: Vec::new(),
    };
    let shown = format!("{login:?}");
    assert!(!shown.contains("104") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_wish_for_tls_is_the_first_half_of_a_login() {
    let request = SslRequest { capabilities: capability::SSL | 1, max_packet: 9, charset: 45 };
    let bytes = request.encode();
    assert_eq!(bytes.len(), SSL_REQUEST);
    assert_eq!(SslRequest::decode(&bytes), Some(request));
    assert_eq!(SslRequest::decode(&bytes[..31]), None);
}
