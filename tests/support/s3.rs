//! A real S3 server for tests: SeaweedFS on free loopback ports, gone with its handle.
//!
//! `AGRPO_WEED` names the program, as `make test` sets it; without it the test fails and says so.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

const KEY: &str = "agrpo";
const SECRET: &str = "loopback-only";

/// A running SeaweedFS with a bucket named `agrpo`, killed when dropped.
#[derive(Debug)]
pub(crate) struct S3Server {
    child: Child,
    endpoint: String,
    _folder: tempfile::TempDir,
}

impl S3Server {
    /// Starts a server and waits until an object written to the bucket reads back.
    pub(crate) fn start() -> Self {
        let weed = std::env::vars_os().find(|(name, _)| name == "AGRPO_WEED").map_or_else(
            || panic!("AGRPO_WEED names no SeaweedFS: run the tests by `make test`, or set it to the answer of `infra/fetch.py seaweedfs`"),
            |(_, path)| path,
        );
        let folder = tempfile::tempdir().unwrap();
        let [master, volume, filer, s3] = free_ports();
        let child = Command::new(weed)
            .args(["server", "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-filer", "-s3"])
            .arg(format!("-dir={}", folder.path().display()))
            .arg(format!("-master.port={master}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-s3.port={s3}"))
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"])
            .args(["-master.volumeSizeLimitMB=512", "-volume.max=20"])
            .arg(format!("-s3.config={}", infra("s3.json")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, endpoint: format!("http://127.0.0.1:{s3}"), _folder: folder };
        let ready = Command::new("python3")
            .arg(infra("s3.py"))
            .args([server.endpoint.as_str(), "agrpo"])
            .envs([("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)])
            .status()
            .unwrap();
        assert!(ready.success(), "SeaweedFS did not become ready");
        server
    }

    /// What the program has to be told to use the bucket.
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

/// A file of `infra/`, from whichever crate these tests belong to.
fn infra(name: &str) -> String {
    let mut above = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let folder = above.find_map(|folder| Some(folder.join("infra")).filter(|found| found.exists()));
    folder.expect("the checkout has an infra folder").join(name).display().to_string()
}

/// Four ports that are free together with their gRPC twins 10000 above.
fn free_ports() -> [u16; 4] {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let mut found = (20_000..50_000)
        .map(|n| 20_000 + (n - 20_000 + std::process::id() * 16) % 30_000)
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|&port| free(port) && free(port + 10_000));
    std::array::from_fn(|_| found.next().expect("free ports"))
}
