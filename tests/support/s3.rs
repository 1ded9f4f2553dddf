//! A real S3 server for tests: SeaweedFS on free loopback ports, gone with its handle.
//!
//! Used by the unit tests of `jobs` and by the integration tests.
//! `AGRPO_WEED` names the program, as `make test` sets it; without it the test fails and says so.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const KEY: &str = "agrpo";
const SECRET: &str = "loopback-only";

/// A running SeaweedFS with a bucket named `agrpo`, killed when dropped.
#[derive(Debug)]
pub(crate) struct S3Server {
    child: Child,
    ports: [u16; 4],
    endpoint: String,
    folder: tempfile::TempDir,
}

impl S3Server {
    /// Starts a server and waits until an object written to the bucket reads back.
    pub(crate) fn start() -> Self {
        let (folder, ports) = (tempfile::tempdir().expect("a temporary folder"), free_ports());
        let endpoint = format!("http://127.0.0.1:{}", ports[3]);
        let server = Self { child: spawn(folder.path(), ports), ports, endpoint, folder };
        assert!(server.is_ready(), "SeaweedFS on ports {:?} did not become ready", server.ports);
        server
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }

    /// Starts it again on its ports and folder, and waits until it is ready. Tried up to three times: while it was
    /// away, a connection of another process may have had its port.
    pub(crate) fn revive(&mut self) {
        for _ in 0..3 {
            self.child = spawn(self.folder.path(), self.ports);
            if self.is_ready() {
                return;
            }
            self.kill();
        }
        panic!("SeaweedFS on ports {:?} did not come back", self.ports);
    }

    /// Where S3 is spoken.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[3]).into()
    }

    /// Waits until it is usable; false after a time limit.
    fn is_ready(&self) -> bool {
        let ready = Command::new("python3")
            .arg(infra("s3.py"))
            .args([self.endpoint.as_str(), "agrpo"])
            .envs([("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)])
            .status()
            .expect("python3");
        ready.success()
    }

    /// The environment in which the program uses the bucket.
    pub(crate) fn environment(&self) -> [(&str, &str); 5] {
        [
            ("AGRPO_STORE", "s3://agrpo"),
            ("AWS_ENDPOINT", &self.endpoint),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ]
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts the program on its ports.
fn spawn(folder: &Path, [master, volume, filer, s3]: [u16; 4]) -> Child {
    let weed = std::env::vars_os().find(|(name, _)| name == "AGRPO_WEED").map_or_else(
        || panic!("AGRPO_WEED names no SeaweedFS: run the tests by `make test`, or set it to the answer of `infra/fetch.py seaweedfs`"),
        |(_, path)| path,
    );
    Command::new(weed)
        .args(["server", "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-filer", "-s3"])
        .arg(format!("-dir={}", folder.display()))
        .arg(format!("-master.port={master}"))
        .arg(format!("-volume.port={volume}"))
        .arg(format!("-filer.port={filer}"))
        .arg(format!("-s3.port={s3}"))
        .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"])
        .args(["-master.volumeSizeLimitMB=512", "-volume.max=20"])
        .arg(format!("-s3.config={}", infra("s3.json").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("AGRPO_WEED names a program")
}

/// A file in `infra/`, whichever crate asks.
fn infra(name: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = package.ancestors().map(|folder| folder.join("infra").join(name));
    paths.find(|path| path.exists()).expect("the repository has infra/")
}

/// Four ports that are free together with their gRPC twins 10000 above. All of them lie below those that the
/// system gives to outgoing connections, one of which could have a port before the server does.
pub(crate) fn free_ports() -> [u16; 4] {
    // Servers that one process starts at once search from different numbers on.
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id() * 16 + TAKEN.fetch_add(1, Ordering::Relaxed) * 1024;
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let mut found = (10_000..20_000)
        .map(|n| 10_000 + (n - 10_000 + begin) % 10_000)
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|&port| free(port) && free(port + 10_000));
    std::array::from_fn(|_| found.next().expect("free ports"))
}
