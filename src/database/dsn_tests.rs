//! Addresses of database servers.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn addresses_are_read() {
    let dsn =
        Dsn::parse("mysql://ehpc:p%40ss:w@db.example.com:3307/?tls=require&tls_ca=/etc/ca.pem&tls_name=db")
            .unwrap();
    assert_eq!(dsn.server, Server::Tcp("db.example.com".into(), 3307));
    assert_eq!(dsn.user, "ehpc");
    assert_eq!(dsn.password, Password::Text("p@ss:w".into()));
    assert_eq!(dsn.tls.mode, TlsMode::Require);
    assert_eq!(dsn.tls.ca.as_deref(), Some(Path::new("/etc/ca.pem")));
    assert_eq!(dsn.tls.name.as_deref(), Some("db"));

    let dsn = Dsn::parse("mysql://root@[::1]:3306").unwrap();
    assert_eq!(dsn.server, Server::Tcp("::1".into(), 3306));
    assert_eq!((dsn.tls.mode, dsn.password), (TlsMode::Off, Password::None));
    assert_eq!(Dsn::parse("mysql://root@10.0.0.5/").unwrap().tls.mode, TlsMode::Verify);
    assert_eq!(Dsn::parse("mysql://a:b@c@h/").unwrap().password, Password::Text("b@c".into()));

    assert_eq!(
        Dsn::parse("/run/mysqld/mysqld.sock").unwrap(),
        Dsn::socket("/run/mysqld/mysqld.sock", "root")
    );
    let dsn = Dsn::parse("mysql://u@localhost/?socket=/tmp/a%20b.sock&password_file=/etc/pw").unwrap();
    assert_eq!(dsn.server, Server::Socket("/tmp/a b.sock".into()));
    assert_eq!(dsn.password, Password::File("/etc/pw".into()));
}

#[test]
fn wrong_addresses_are_named() {
    let error = |text: &str| Dsn::parse(text).unwrap_err();
    assert_eq!(error("postgres://a@b"), DsnError::Scheme);
    assert_eq!(error("db:3306"), DsnError::Scheme);
    assert_eq!(error("mysql://host/"), DsnError::User);
    assert_eq!(error("mysql://@host/"), DsnError::User);
    assert_eq!(error("mysql://u@/"), DsnError::Host(String::new()));
    assert_eq!(error("mysql://u@h:0/"), DsnError::Port("0".into()));
    assert_eq!(error("mysql://u@h:99999/"), DsnError::Port("99999".into()));
    assert_eq!(error("mysql://u@h/db"), DsnError::Host("h/db".into()));
    assert_eq!(error("mysql://u@h?tls=yes"), DsnError::Tls("yes".into()));
    assert_eq!(error("mysql://u@h?ssl=1"), DsnError::Key("ssl".into()));
    assert_eq!(error("mysql://u%4@h"), DsnError::Escape);
    assert_eq!(error("mysql://u%zz@h"), DsnError::Escape);
    assert_eq!(error("mysql://u%ff@h"), DsnError::Escape);
    assert_eq!(error("mysql://u@h?socket=a"), DsnError::Relative("a".into()));
    assert_eq!(error(&format!("mysql://u@{}", "h".repeat(5000))), DsnError::Long);
}

#[test]
fn no_password_is_shown() {
    let dsn = Dsn::parse("mysql://ehpc:geheim@10.0.0.5/").unwrap();
    assert!(!format!("{dsn:?} {dsn}").contains("geheim"));
    assert_eq!(dsn.to_string(), "ehpc@10.0.0.5:3306");
}

#[test]
fn password_files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pw");
    std::fs::write(&path, "s \"e\\cret\r\n").unwrap();
    let dsn = Dsn::socket("/s", "u").with_password(Password::File(path.clone()));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = dsn.secret().unwrap_err().to_string();
    assert!(error.contains("(mode 0640); chmod 600"), "{error}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(dsn.secret().unwrap().unwrap(), "s \"e\\cret");
    let options = dsn.option_file().unwrap();
    assert_eq!(options, "[client]\nuser=\"u\"\npassword=\"s \\\"e\\\\cret\"\nsocket=\"/s\"\nskip-ssl\n");
    std::fs::write(&path, [b'a'; 1025]).unwrap();
    assert!(matches!(dsn.secret(), Err(PasswordError::Content { .. })));
}
