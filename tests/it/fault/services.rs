//! The services of a schedule: a Redis that can be killed and restarted on its port, a SeaweedFS that schedules share
//! or have alone, and an access to the bucket that no fault affects.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use futures::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use rustix::time::{ClockId, clock_gettime};

use crate::support::s3::{S3Server, free_ports};
use crate::support::wait::wait_for;

const CLOCK_FILE: &str = "clock";

/// A Redis whose process comes and goes; port and folder stay.
#[derive(Debug)]
pub(crate) struct Redis {
    child: Option<Child>,
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
    /// Whether its data survives its end.
    keeps: bool,
    /// Says by how many seconds its clock is wrong.
    clock: Option<File>,
}

/// The library that makes a process's clock wrong.
pub(super) static CLOCK: LazyLock<tempfile::TempPath> = LazyLock::new(|| {
    let library = tempfile::Builder::new().suffix(".so").tempfile().unwrap().into_temp_path();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fault/clock.c"))
        .status()
        .unwrap();
    assert!(built.success(), "clock.c does not compile");
    library
});

impl Redis {
    /// Starts it; `tampers`: with a clock that can be set.
    pub(crate) fn start(keeps: bool, tampers: bool) -> Self {
        // The port has to stay free while Redis is down.
        let [port, ..] = free_ports();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let folder = tempfile::tempdir().unwrap();
        let clock = tampers.then(|| File::create(folder.path().join(CLOCK_FILE)).unwrap());
        let mut redis = Self { child: None, address, folder, keeps, clock };
        redis.set_clock(0);
        redis.revive();
        redis
    }

    /// Sets its clock so many seconds off, if that can be.
    pub(crate) fn set_clock(&self, seconds: i64) {
        if let Some(clock) = &self.clock {
            clock.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
        }
    }

    /// Seconds by which its clock is ahead of this machine's.
    pub(crate) fn ahead(&self) -> Result<i64, String> {
        let (seconds, _) = self.ask::<(i64, i64)>(redis::cmd("TIME"))?;
        Ok(seconds - clock_gettime(ClockId::Realtime).tv_sec)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again and waits until it answers.
    pub(crate) fn revive(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        if self.clock.is_some() {
            command.env("LD_PRELOAD", &*CLOCK);
            command.env("AGRPO_CLOCK_FILE", self.folder.path().join(CLOCK_FILE));
        }
        let child = command
            .args(["--port", &self.address.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", if self.keeps { "yes" } else { "no" }])
            .args(["--appendfsync", "always", "--dir"])
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.child = Some(child);
        wait_for("the answer of redis-server", || self.ask::<String>(redis::cmd("PING")).ok());
    }

    /// A command, past all proxies.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, command: redis::Cmd) -> Result<T, String> {
        let text = |error: redis::RedisError| error.to_string();
        let client = redis::Client::open(self.url()).map_err(text)?;
        let mut connection = client.get_connection().map_err(text)?;
        command.query(&mut connection).map_err(text)
    }

    /// Several commands as one.
    pub(crate) fn ask_all<T: redis::FromRedisValue>(
        &self,
        commands: &redis::Pipeline,
    ) -> Result<T, String> {
        let text = |error: redis::RedisError| error.to_string();
        let client = redis::Client::open(self.url()).map_err(text)?;
        commands.query(&mut client.get_connection().map_err(text)?).map_err(text)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The SeaweedFS that schedules share, each under a prefix of its own; it ends with the last of them.
pub(crate) fn shared_s3() -> Arc<Mutex<S3Server>> {
    static SHARED: Mutex<Weak<Mutex<S3Server>>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Mutex::new(S3Server::start()));
        *shared = Arc::downgrade(&server);
        server
    })
}

/// The objects of a schedule's store.
pub(crate) struct Objects {
    store: Box<dyn ObjectStore>,
    runtime: tokio::runtime::Runtime,
}

impl Objects {
    pub(crate) fn of_bucket(environment: &[(&str, &str)], prefix: &str) -> Self {
        let mut builder = AmazonS3Builder::new().with_allow_http(true).with_bucket_name("agrpo");
        for (name, value) in environment {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, *value);
            }
        }
        Self::new(Box::new(PrefixStore::new(builder.build().unwrap(), prefix)))
    }

    pub(crate) fn of_folder(folder: &std::path::Path) -> Self {
        Self::new(Box::new(LocalFileSystem::new_with_prefix(folder).unwrap()))
    }

    fn new(store: Box<dyn ObjectStore>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { store, runtime }
    }

    /// Names and times of last change below a folder; the newest comes last.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<String>, object_store::Error> {
        let listing = self.store.list(Some(&folder.into()));
        let mut found: Vec<_> = self.runtime.block_on(listing.try_collect())?;
        found.sort_by_key(|object: &object_store::ObjectMeta| object.last_modified);
        let name = |object: object_store::ObjectMeta| {
            object.location.filename().unwrap_or_default().to_owned()
        };
        Ok(found.into_iter().map(name).collect())
    }

    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, object_store::Error> {
        self.runtime
            .block_on(async { Ok(self.store.get(&name.into()).await?.bytes().await?.to_vec()) })
    }

    pub(crate) fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), object_store::Error> {
        self.runtime.block_on(self.store.put(&name.into(), PutPayload::from(bytes))).map(drop)
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), object_store::Error> {
        self.runtime.block_on(self.store.delete(&name.into()))
    }
}
