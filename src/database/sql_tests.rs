//! SQL against real servers: logins, TLS, values, faults.

use super::*;
use ehpc_tools::database::{Maria, Options};
use std::fs;

fn on(server: &Maria) -> Dsn {
    Dsn::socket(server.socket(), "root")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn values_and_faults() {
    let server = Maria::start(Options::default()).unwrap();
    runtime().block_on(async {
        let mut sql = Sql::connect(&on(&server)).await.unwrap();
        assert!(sql.dialect().is_mariadb());
        assert_eq!(sql.number("SELECT CONNECTION_ID()").await.unwrap(), Some(u64::from(sql.id())));
        let row = sql
            .row("SELECT NULL, x'00ff27', 'žluť 🐎', -5, 18446744073709551615, 1.5")
            .await
            .unwrap()
            .unwrap();
        assert_eq!((row.bytes(0), row.bytes(1)), (None, Some(&b"\x00\xff'"[..])));
        assert_eq!(row.text(2).unwrap(), "žluť 🐎");
        assert_eq!((row.number(3), row.number(4), row.number(5)), (None, Some(u64::MAX), None));
        assert_eq!((row.len(), row.bytes(9)), (6, None));
        assert_eq!(sql.variable("server_id").await.unwrap().as_deref(), Some("1"));
        assert_eq!(sql.variable("server%id").await.unwrap(), None);
        assert_eq!(sql.status("Threads_connected").await.unwrap().as_deref(), Some("1"));

        // A refused statement leaves the connection usable.
        let error = sql.run("SELECT * FROM nosuch.tbl").await.unwrap_err();
        assert_eq!(error.number(), Some(1146), "{error}");
        assert!(error.to_string().contains("`SELECT * FROM nosuch.tbl`"), "{error}");
        assert!(!error.is_connection());
        let error = sql.run("SET PASSWORD FOR nobody@x = PASSWORD('geheim')").await.unwrap_err();
        assert!(!error.to_string().contains("geheim"), "{error}");
        let error = sql.number("SELECT 'x'").await.unwrap_err();
        assert!(error.to_string().contains("`x` is not a number"), "{error}");

        // The session is fixed whatever the server's defaults are.
        let table =
            sql.table("SELECT @@sql_mode AS m, @@time_zone AS z, @@lock_wait_timeout AS l").await.unwrap();
        assert_eq!(table.text(0, "Z").as_deref(), Some("+00:00"));
        assert_eq!(table.text(0, "m").as_deref(), Some("STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION"));
        assert_eq!(table.first_of(0, &["nope", "l"]).as_deref(), Some("30"));

        // One that takes too long ends the connection: its late answer can never be another's.
        sql.set_statement_time(Some(Duration::from_millis(100)));
        let error = sql.run("SELECT SLEEP(30)").await.unwrap_err();
        assert!(matches!(error, SqlError::Slow { .. }), "{error}");
        assert!(matches!(sql.number("SELECT 1").await, Err(SqlError::Lost { .. })));
    });
}

#[test]
fn names_and_texts_are_quoted() {
    let server = Maria::start(Options::default()).unwrap();
    runtime().block_on(async {
        let mut sql = Sql::connect(&on(&server)).await.unwrap();
        for name in
            ["plain", "back`tick", "quo'te \"two\"", "жаба", "a.b", "back\\slash", "` ; DROP DATABASE x; --"]
        {
            let quoted = quote_name(name);
            sql.run(&format!("CREATE DATABASE {quoted}")).await.unwrap();
            sql.run(&format!("CREATE TABLE {} (a INT)", quote_table(name, name))).await.unwrap();
            let found = sql
                .text(&format!(
                    "SELECT table_name FROM information_schema.tables WHERE table_schema = {}",
                    quote_text(name)
                ))
                .await
                .unwrap();
            assert_eq!(found.as_deref(), Some(name));
            let same =
                sql.number(&format!("SELECT {} = {}", quote_text(name), quote_bytes(name.as_bytes()))).await;
            assert_eq!(same.unwrap(), Some(1), "{name}");
        }
        let odd = "a\0b\\'\n";
        assert_eq!(sql.text(&format!("SELECT {}", quote_text(odd))).await.unwrap().as_deref(), Some(odd));
    });
}

#[test]
fn logins() {
    let server = Maria::start(Options::default().tcp().with("--plugin-load-add=auth_ed25519")).unwrap();
    server
        .sql(
            "CREATE USER native@'%' IDENTIFIED BY 'pa\"ss';
             CREATE USER edward@'%' IDENTIFIED VIA ed25519 USING PASSWORD('secret');
             CREATE USER nopw@'%';
             ALTER USER root@localhost IDENTIFIED VIA unix_socket;",
        )
        .unwrap();
    let tcp = |user: &str, password: &str| {
        Dsn::new(Server::Tcp("127.0.0.1".into(), server.port().unwrap()), user)
            .with_password(Password::Text(password.into()))
    };
    let me = "SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)";
    runtime().block_on(async {
        for (user, password) in [("native", "pa\"ss"), ("edward", "secret"), ("nopw", "")] {
            let mut sql = Sql::connect(&tcp(user, password)).await.unwrap();
            assert_eq!(sql.text(me).await.unwrap().as_deref(), Some(user));
            sql.close().await;
        }
        // Who we are to the operating system proves it.
        let mut sql = Sql::connect(&on(&server)).await.unwrap();
        assert_eq!(sql.text(me).await.unwrap().as_deref(), Some("root"));

        for (user, password) in [("native", "wrong"), ("edward", "wrong"), ("nobody", "")] {
            let error = Sql::connect(&tcp(user, password)).await.err().unwrap();
            assert!(matches!(error, SqlError::Refused { number: 1045, .. }), "{error}");
            assert!(error.to_string().contains(user), "{error}");
        }
        let closed = Dsn::new(Server::Tcp("127.0.0.1".into(), 1), "root");
        let error = Sql::connect(&closed).await.err().unwrap();
        assert!(matches!(error, SqlError::Unreachable { .. }), "{error}");
        let error = Sql::connect(&Dsn::socket("/nonexistent/sock", "root")).await.err().unwrap();
        assert!(
            error.to_string().starts_with("the database server /nonexistent/sock cannot be reached"),
            "{error}"
        );
    });
}

/// An authority, and a server's certificate of it for `name`: PEM of (authority, certificate, key).
fn certificates(name: &str) -> (String, String, String) {
    let mut of_authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    of_authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority = of_authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&of_authority, &authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (authority.pem(), certificate.pem(), key.serialize_pem())
}

#[test]
fn tls() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (ca, certificate, key) = certificates("db.example.com");
    let (other, ..) = certificates("db.example.com");
    for (name, text) in [("ca", &ca), ("cert", &certificate), ("key", &key), ("other", &other)] {
        fs::write(at(name), text).unwrap();
    }
    let plain = Maria::start(Options::default().tcp()).unwrap();
    let server = Maria::start(
        Options::default()
            .tcp()
            .with(format!("--ssl-cert={}", at("cert").display()))
            .with(format!("--ssl-key={}", at("key").display())),
    )
    .unwrap();
    server.sql("CREATE USER safe@'%' REQUIRE SSL").unwrap();
    let dsn = |server: &Maria, mode, ca: Option<&str>, name: Option<&str>| {
        let mut dsn = Dsn::new(Server::Tcp("127.0.0.1".into(), server.port().unwrap()), "safe");
        dsn.tls = Tls { mode, ca: ca.map(at), name: name.map(str::to_owned) };
        dsn
    };
    let named = Some("db.example.com");
    runtime().block_on(async {
        for good in
            [dsn(&server, TlsMode::Require, None, None), dsn(&server, TlsMode::Verify, Some("ca"), named)]
        {
            let mut sql = Sql::connect(&good).await.unwrap();
            let cipher = sql.row("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await.unwrap().unwrap();
            assert!(!cipher.string(1).is_empty());
        }
        // The account insists, we do not.
        let error = Sql::connect(&dsn(&server, TlsMode::Off, None, None)).await.err().unwrap();
        assert!(matches!(error, SqlError::Refused { number: 1045, .. }), "{error}");
        for wrong in [
            dsn(&server, TlsMode::Verify, Some("other"), named),
            dsn(&server, TlsMode::Verify, None, named),
            dsn(&server, TlsMode::Verify, Some("ca"), None),
            dsn(&server, TlsMode::Verify, Some("ca"), Some("db2.example.com")),
            dsn(&plain, TlsMode::Require, None, None),
        ] {
            let error = Sql::connect(&wrong).await.err().unwrap();
            assert!(matches!(error, SqlError::Tls { .. }), "{wrong:?}: {error:?}");
        }
        let error = Sql::connect(&dsn(&server, TlsMode::Verify, Some("nosuch"), None)).await.err().unwrap();
        assert!(matches!(error, SqlError::Authorities { .. }), "{error}");
    });
}
