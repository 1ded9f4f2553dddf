//! Whether a server creates objects only where there are none. Everything that workers agree on hangs on
//! it: of two that finish one stage, one record stands.
//!
//! Asked once before anything is written, with an object of its own name that is deleted after. Servers
//! that refuse `If-None-Match: *` and servers that overlook it are both refused, with the reason. A local
//! store is not asked: its file system does it.

use bytes::Bytes;

use super::Store;
use super::backend::Backend;
use super::files::Mode;
use crate::error::JobsError;

/// How a server words it that it does not know conditional writes.
const UNKNOWN: [&str; 4] =
    ["501 Not Implemented", "NotImplemented", "not yet implemented", "If-None-Match"];

impl Store {
    /// Makes sure that the store creates an object only where there is none; `unique` is a name that no
    /// other process uses. Invalid error where it does not: such a store is not to be written to.
    pub async fn check_creates(&self, unique: &str) -> Result<(), JobsError> {
        if !self.backend.is_remote() {
            return Ok(());
        }
        let name = format!("probe/{unique}");
        let asked = ask(&self.backend, &name).await;
        // What was found out is told, whether or not the traces go; they are one small object.
        let cleaned = self.backend.delete(&name).await;
        match asked? {
            Ok(()) => cleaned,
            Err(found) => Err(JobsError::Invalid(format!(
                "{}: {found}; agrpo needs conditional writes (PUT with If-None-Match: *), so that of two \
                 workers with one stage a single record stands: AWS S3, Cloudflare R2, MinIO and \
                 SeaweedFS from 4.17 have them; use one of those, or a folder",
                self.url()
            ))),
        }
    }
}

/// Creates one object twice. `Ok(Err(_))`: why the server will not do.
async fn ask(backend: &Backend, name: &str) -> Result<Result<(), String>, JobsError> {
    for (try_, expected) in [(1, true), (2, false)] {
        let body = Bytes::from(format!("agrpo {try_}"));
        match backend.put(name, body, Mode::Create, false).await {
            Ok(created) if created == expected => {}
            Ok(true) => {
                return Ok(Err("the server overlooks conditional writes: it created an object \
                               that was there already"
                    .to_owned()));
            }
            // A first try whose answer was lost has created it after all.
            Ok(false) => {}
            Err(error) if UNKNOWN.iter().any(|text| error.to_string().contains(text)) => {
                return Ok(Err("the server refuses conditional writes".to_owned()));
            }
            Err(error) => return Err(error),
        }
    }
    match backend.read(name).await? {
        Some(found) if found == "agrpo 1" => Ok(Ok(())),
        Some(_) => {
            Ok(Err("the server overlooks conditional writes: it says that it kept an object, \
                           and wrote over it"
                .to_owned()))
        }
        None => Ok(Err("the server says that an object is there, and it is not".to_owned())),
    }
}
