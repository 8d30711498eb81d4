//! Chromium, driven as W3C WebDriver says (chromedriver's HTTP interface).

use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How WebDriver names an element in JSON (W3C WebDriver 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window; it ends when dropped.
pub(crate) struct Browser {
    driver: Child,
    /// `http://127.0.0.1:PORT/session/ID`
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Browser {
        let profile = tempfile::Builder::new().prefix("ehpc-browser-").tempdir().expect("a directory");
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env("HOME", profile.path())
            .spawn()
            .expect("chromedriver starts");
        let mut browser = Browser { driver, session: format!("http://127.0.0.1:{port}"), _profile: profile };
        let until = Instant::now() + Duration::from_secs(30);
        while browser.call("GET", "/status", &Value::Null).is_err() {
            assert!(Instant::now() < until, "chromedriver does not answer");
            crate::proxy::pause(20);
        }
        let path = |path: &Path| format!("--user-data-dir={}", path.display());
        let arguments = [
            "--headless=new".to_owned(),
            // The tests run as root, in a network where nothing but the tests' own servers is reachable.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--no-first-run".to_owned(),
            path(browser._profile.path()),
        ];
        let options = json!({ "binary": "/usr/bin/chromium", "args": arguments });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let made = browser.call("POST", "/session", &wanted).expect("Chromium starts");
        let id = made["sessionId"].as_str().expect("a session").to_owned();
        browser.session.push_str("/session/");
        browser.session.push_str(&id);
        browser
    }

    /// One command: its value, or what the driver says went wrong.
    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "60", "-X", method, "-H", "Content-Type: application/json"]);
        if method == "POST" {
            command.args(["-d", &body.to_string()]);
        }
        let output = command.arg(format!("{}{path}", self.session)).output().expect("curl runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer: Value = serde_json::from_str(&said)
            .map_err(|error| format!("{error}: {said:?} {}", String::from_utf8_lossy(&output.stderr)))?;
        match &answer["value"]["error"] {
            Value::Null => Ok(answer["value"].clone()),
            error => Err(format!("{error}: {}", answer["value"]["message"])),
        }
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.call("POST", path, body).unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    /// Opens a page and waits until it is loaded.
    pub(crate) fn open(&self, address: &str) {
        self.post("/url", &json!({ "url": address }));
    }

    /// Value of a function body in the page.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The same of one that calls its last argument, `done`, when it has the value.
    pub(crate) fn run_until_done(&self, script: &str) -> Value {
        let script = format!("const done = arguments[arguments.length - 1]; {script}");
        self.post("/execute/async", &json!({ "script": script, "args": [] }))
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// As a mouse does; a page that it leads to is waited for.
    pub(crate) fn click(&self, selector: &str) {
        self.post(&format!("/element/{}/click", self.element(selector)), &json!({}));
    }

    /// As a keyboard does; of a file's field: chooses the file.
    pub(crate) fn write(&self, selector: &str, text: &str) {
        self.post(&format!("/element/{}/value", self.element(selector)), &json!({ "text": text }));
    }

    /// What a person reads.
    pub(crate) fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call("DELETE", "", &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
