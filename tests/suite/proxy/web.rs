//! Real web servers: nginx and gunicorn, which answer with the target that was asked for and their own name.

use super::side;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Which.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Nginx,
    Gunicorn,
}

/// One of them; its process group ends with it.
pub(crate) struct Web {
    network: u32,
    kind: Kind,
    /// What it calls itself.
    pub(crate) name: &'static str,
    address: String,
    port: u16,
    directory: PathBuf,
    child: Option<Child>,
}

const APPLICATION: &str = "import time
def application(environ, start):
    if environ['PATH_INFO'] == '/chunked':
        start('200 OK', [('Content-Type', 'text/plain')])
        return iter([b'one ', b'two'])
    if environ['PATH_INFO'] == '/echo':
        body = environ['wsgi.input'].read()
        start('200 OK', [('Content-Length', str(len(body)))])
        return [body]
    time.sleep(0.005)
    body = (environ.get('RAW_URI') or environ['PATH_INFO']).encode()
    start('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body))), ('X-Web', 'NAME')])
    return [body]
";

impl Web {
    /// Starts it on `address:port`, with its files below `directory`.
    pub(crate) fn start(kind: Kind, name: &'static str, address: &str, port: u16, directory: &Path) -> Web {
        Web::start_in(std::process::id(), kind, name, address, port, directory)
    }

    /// Likewise in the network of process `network`.
    pub(crate) fn start_in(
        network: u32,
        kind: Kind,
        name: &'static str,
        address: &str,
        port: u16,
        directory: &Path,
    ) -> Web {
        let directory = directory.join(name);
        fs::create_dir_all(&directory).expect("made");
        let mut web = Web { network, kind, name, address: address.into(), port, directory, child: None };
        web.restart();
        web
    }

    fn listens(&self) -> bool {
        side::listens_in(self.network, &self.address, self.port)
    }

    /// Starts it (again) and waits until it listens.
    pub(crate) fn restart(&mut self) {
        let (address, port, name) = (&self.address, self.port, self.name);
        let command = match self.kind {
            Kind::Nginx => {
                let file = self.directory.join("nginx.conf");
                let text = format!(
                    "daemon off; worker_processes 1; pid nginx.pid; error_log stderr;\nevents {{ worker_connections 4096; }}\n\
                     http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fast; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
                     server {{ listen {address}:{port} backlog=1024; location /files/ {{ root .; default_type text/plain; }} location / {{ default_type text/plain; add_header X-Web {name}; return 200 $request_uri; }} }} }}\n"
                );
                fs::write(&file, text).expect("written");
                let files = self.directory.join("files");
                fs::create_dir_all(&files).expect("made");
                for (name, text) in [("small", "0123456789\n".to_owned()), ("big", "z".repeat(1 << 20))] {
                    fs::write(files.join(name), text).expect("written");
                    let then = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
                    let file = fs::File::options().write(true).open(files.join(name)).expect("opened");
                    file.set_modified(then).expect("set");
                }
                let mut command = Command::new("nginx");
                command.arg("-p").arg(&self.directory).arg("-c").arg(&file);
                command
            }
            Kind::Gunicorn => {
                let file = self.directory.join("application.py");
                fs::write(&file, APPLICATION.replace("NAME", name)).expect("written");
                let mut command = Command::new("gunicorn");
                command.args(["-w", "3", "--graceful-timeout", "3", "--log-level", "warning"]);
                command
                    .args(["-b", &format!("{address}:{port}"), "--chdir"])
                    .arg(&self.directory)
                    .arg("application");
                command
            }
        };
        let errors = fs::File::create(self.directory.join("stderr")).expect("made");
        let child = Command::new("nsenter")
            .args(["-t", &self.network.to_string(), "-n", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{:?} does not start: {error}", self.kind));
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(40);
        while !self.listens() {
            let said = || fs::read_to_string(self.directory.join("stderr")).unwrap_or_default();
            assert!(Instant::now() < until, "{:?} does not listen: {}", self.kind, said());
            super::pause(10);
        }
    }

    /// SIGKILL to all its processes. From when to when that was.
    pub(crate) fn kill(&mut self) -> (Instant, Instant) {
        self.end("KILL")
    }

    /// Asks it to finish what it has. From when to when that was.
    pub(crate) fn quit(&mut self) -> (Instant, Instant) {
        self.end(if matches!(self.kind, Kind::Nginx) { "QUIT" } else { "TERM" })
    }

    fn end(&mut self, signal: &str) -> (Instant, Instant) {
        let begun = Instant::now();
        if let Some(mut child) = self.child.take() {
            // A graceful end is the master's task; SIGKILL goes to all.
            let target = if signal == "KILL" { format!("-{}", child.id()) } else { child.id().to_string() };
            let sent = Command::new("kill").args([&format!("-{signal}"), "--", &target]).status();
            assert!(sent.expect("kill runs").success(), "kill -{signal} {target}");
            child.wait().expect("waits");
            // Workers die a moment after their master.
            let until = Instant::now() + Duration::from_secs(10);
            while self.listens() {
                assert!(Instant::now() < until, "{} still listens after SIG{signal}", self.name);
                super::pause(1);
            }
        }
        (begun, Instant::now())
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.end("KILL");
        }
    }
}
