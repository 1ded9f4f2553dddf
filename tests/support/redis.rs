//! A real Redis for tests: its own process, port and folder, gone with its handle.
//!
//! Used by the unit tests of `jobs` and by the integration tests. It never talks to a Redis that
//! another process started, and it never skips: without `redis-server` the test fails and says how to
//! install it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running Redis, killed when dropped.
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    extra: Vec<String>,
    environment: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl RedisServer {
    /// Starts a Redis on a free loopback port and waits until it answers; `extra` are further
    /// arguments of `redis-server`.
    pub(crate) fn start(extra: &[&str]) -> Self {
        Self::start_with(extra, &[])
    }

    /// The same in an environment with these variables.
    pub(crate) fn start_with(extra: &[&str], environment: &[(&str, &str)]) -> Self {
        // Another process may take the free port before Redis binds it: then try another one.
        (0..5)
            .find_map(|_| Self::try_start(extra, environment))
            .expect("redis-server did not answer on any of five ports")
    }

    /// Where it listens, without credentials.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it by SIGKILL; its files stay.
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Stops it by SIGSTOP; it is still killed when dropped.
    pub(crate) fn stop(&self) {
        let stop = Command::new("kill").args(["-STOP", &self.child.id().to_string()]).status();
        assert!(stop.is_ok_and(|status| status.success()), "redis-server was not stopped");
    }

    /// Starts it again after `kill`, on its port and in its folder.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.port, self.folder.path(), &self.extra, &self.environment);
        assert!(self.is_up(), "redis-server did not come back");
    }

    fn try_start(extra: &[&str], environment: &[(&str, &str)]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let extra: Vec<String> = extra.iter().map(|&text| text.to_owned()).collect();
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let environment: Vec<_> = environment.iter().map(own).collect();
        let child = spawn(port, folder.path(), &extra, &environment);
        let mut server = Self { child, port, extra, environment, folder };
        server.is_up().then_some(server)
    }

    fn is_up(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if answers(self.port) {
                return true;
            }
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

fn spawn(port: u16, folder: &Path, extra: &[String], environment: &[(String, String)]) -> Child {
    Command::new("redis-server")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "yes", "--dir"])
        .arg(folder)
        .args(extra)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("redis-server: {error}; install it with `apt install redis-server` (Debian)")
        })
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
    listener.local_addr().expect("a bound port").port()
}

/// Whether a Redis answers there, even if it needs a password.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let mut reply = [0; 7];
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut reply).is_ok()
        && (&reply == b"+PONG\r\n" || reply.starts_with(b"-NOAUTH"))
}
