//! What a command works with: the settings, one runtime, one store and one connection to Redis. The only file that
//! starts a runtime, opens the user's store or connects to Redis. Each is made at its first use and kept until the
//! command ends, so a command that needs none of them opens none. `--store` and `--redis` come from the dispatcher;
//! their defaults are in `settings.rs`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{cell::OnceCell, future::Future, pin::Pin, sync::Arc};

use agrpo_fleet::{Access, Fleet};
use agrpo_spec::RunId;
use agrpo_store::{Address, FOLDERS, JobsError, LOCKS, Store};
use agrpo_view::live::Connect;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell as AsyncCell;

use crate::args::{CacheArgs, FleetArgs, StoreArgs};
use crate::exit::{Exit, Failure, Result, cannot};
use crate::settings::{Resolved, Settings};
use crate::{machine, shell};

#[derive(Default)]
pub(crate) struct Session {
    pub(crate) settings: Settings,
    store_flag: Option<String>,
    redis_flag: Option<String>,
    store: AsyncCell<Store>,
    /// Set once the store was seen to refuse a second creation of an object.
    creates: AsyncCell<()>,
    fleet: AsyncCell<Fleet>,
    /// Last: it ends after the store and the connection that live on it.
    runtime: OnceCell<Runtime>,
}

impl Session {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Names the store of a command that takes `--store`.
    pub(crate) fn with_store(self, args: &StoreArgs) -> Self {
        Self { store_flag: args.store.clone(), ..self }
    }

    /// Names store and Redis of a command that takes `--store` and `--redis`.
    pub(crate) fn with_fleet(self, args: &FleetArgs) -> Self {
        Self { redis_flag: args.redis.clone(), ..self.with_store(&args.store) }
    }

    /// Runs a command's asynchronous part. Stages run on the blocking pool, so two threads serve the rest.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if let Some(runtime) = self.runtime.get() {
            return runtime.block_on(work);
        }
        let started = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let started = started.map_err(cannot("start threads"))?;
        self.runtime.get_or_init(|| started).block_on(work)
    }

    /// The same for a command that reads the store, which has to exist.
    pub(crate) fn on_store<T>(&self, work: impl AsyncFnOnce(Store) -> Result<T>) -> Result<T> {
        self.block_on(async { work(self.existing_store().await?).await })
    }

    /// The store; a folder is created where it is missing. Refuses a folder of other files, which a store would be among.
    pub(crate) async fn open_store(&self) -> Result<Store> {
        if let Some(folder) = self.store_folder().filter(|folder| folder.is_dir())
            && !may_be_store(&folder)
        {
            let place = std::path::absolute(&folder).unwrap_or(folder);
            return Err(Failure::usage(format!(
                "{} holds other files, and no store",
                place.display()
            ))
            .hint("name a new or an empty folder with --store or AGRPO_STORE"));
        }
        let open = async || {
            let url = self.settings.store(self.store_flag.as_deref()).value;
            Store::open(&url, &self.settings.object_store_options()).await
        };
        let store = self.store.get_or_try_init(open).await.map_err(|error| {
            let hint = format!("agrpo doctor{}", self.store_option());
            Failure::from(error).hint_on(Exit::Unavailable, hint)
        })?;
        Ok(store.clone())
    }

    /// The store to write to. A server has to create objects only where there are none, which is checked once.
    pub(crate) async fn writable_store(&self) -> Result<Store> {
        let store = self.open_store().await?;
        let check = async || store.objects.check_creates(&machine::environment().worker).await;
        self.creates.get_or_try_init(check).await?;
        Ok(store)
    }

    /// The store to write to, with this host's cache of blobs.
    pub(crate) async fn cached_store(&self, cache: &CacheArgs) -> Result<Store> {
        let limit = self.settings.cache_size(cache.cache_size)?;
        let store = self.writable_store().await?;
        let folder = self.settings.cache(cache.cache.as_deref());
        Ok(folder.map_or_else(|| store.clone(), |folder| store.with_cache(&folder, limit)))
    }

    /// The store, which has to exist: a question about results creates nothing.
    pub(crate) async fn existing_store(&self) -> Result<Store> {
        if let Some(folder) = self.store_folder()
            && !may_be_store(&folder)
        {
            let place = std::path::absolute(&folder).unwrap_or(folder);
            let failure = Failure::usage(format!("no store at {}", place.display()));
            if self.settings.store(self.store_flag.as_deref()).given {
                let hint = "name another with --store or AGRPO_STORE; agrpo run FILE creates one";
                return Err(failure.hint(hint));
            }
            return Err(failure.hint("agrpo run FILE creates it").hint(
                "if it is elsewhere: go to the folder where agrpo run was started, or name it with --store",
            ));
        }
        self.open_store().await
    }

    /// The folder of a store on this machine; `None` for the others, and for what is no store.
    pub(crate) fn store_folder(&self) -> Option<PathBuf> {
        Address::parse(&self.settings.store(self.store_flag.as_deref()).value).ok()?.folder()
    }

    /// ` --store URL` for commands that are suggested; empty where they need none.
    pub(crate) fn store_option(&self) -> String {
        let flag = self.store_flag.as_deref();
        flag.map(|url| format!(" --store {}", shell::word(url))).unwrap_or_default()
    }

    pub(crate) async fn fleet(&self) -> Result<Fleet, JobsError> {
        let connect = async || Fleet::connect(self.redis().value).await;
        self.fleet.get_or_try_init(connect).await.cloned()
    }

    /// Whether the user or the environment names a Redis; otherwise it is only the default.
    pub(crate) fn names_redis(&self) -> bool {
        self.redis().given
    }

    /// How a page connects to the fleet; `None` without a named Redis, as for a run in one process.
    pub(crate) fn connector(&self) -> Option<Connect> {
        let Resolved { value: access, given } = self.redis();
        given.then(|| {
            Arc::new(move || -> Pin<Box<dyn Future<Output = _> + Send>> {
                Box::pin(Fleet::connect(access.clone()))
            }) as Connect
        })
    }

    /// ` --redis URL` for commands that are suggested; empty where they need none.
    pub(crate) fn redis_option(&self) -> String {
        // What is printed may end up in a log; a password must not.
        let shown = |url: &str| if url.contains('@') { "URL".to_owned() } else { shell::word(url) };
        let flag = self.redis_flag.as_deref();
        flag.map(|url| format!(" --redis {}", shown(url))).unwrap_or_default()
    }

    fn redis(&self) -> Resolved<Access> {
        self.settings.redis(self.redis_flag.as_deref())
    }
}

/// What file systems and desktops put into an empty folder, beside names that begin with a dot.
const FOREIGN: [&str; 5] =
    ["lost+found", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"];

/// Whether a folder holds a part of a store, or nothing but what file systems and desktops put there. One that cannot
/// be listed is left to the store.
fn may_be_store(folder: &Path) -> bool {
    let names = |folder: &Path| -> Option<Vec<OsString>> {
        Some(folder.read_dir().ok()?.flatten().map(|entry| entry.file_name()).collect())
    };
    let is_id = |name: &OsString| {
        name.to_str().and_then(|name| name.get(..64)).is_some_and(|id| id.parse::<RunId>().is_ok())
    };
    let is_part = |part: &str| {
        let Some(children) = names(&folder.join(part)) else { return false };
        // Folders of these names are common.
        !matches!(part, "runs" | "stages") || children.is_empty() || children.iter().any(is_id)
    };
    let is_foreign = |name: &OsString| {
        name.as_encoded_bytes().starts_with(b".") || FOREIGN.iter().any(|foreign| name == foreign)
    };
    if !folder.is_dir() {
        return false;
    }
    let Some(inside) = names(folder) else { return true };
    inside.iter().all(is_foreign) || FOLDERS.into_iter().chain([LOCKS]).any(is_part)
}
