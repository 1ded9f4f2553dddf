//! Whether a server creates objects only where there are none: of two workers that finish one stage, one record
//! stands.
//!
//! Asked once before anything is written, with objects of unique names, which are deleted after. Servers that refuse
//! `If-None-Match: *` and servers that overlook it are both refused, with the reason. A conflict (409) is no verdict,
//! so the server is asked again; a definite answer has to come twice. A local store is not asked: its file system does
//! it.

use std::time::Duration;

use bytes::Bytes;
use object_store::PutMode;

use super::{answer::is_of_condition, exchange::Objects};
use crate::{JobsError, Result};

/// How often a server is asked that gives no definite answer.
const TRIES: u32 = 6;
/// Grows with each of those tries.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 300 });

/// What one time of asking found out.
enum Found {
    /// The server does what it should.
    Creates,
    /// It does not, for this reason.
    Incompatible(&'static str),
    /// It could not tell.
    Unsure,
}

impl Objects {
    /// Makes sure that the store creates an object only where there is none. `unique` is a name that no other process
    /// uses. Invalid error where it does not: such a store must not be written to.
    pub async fn check_creates(&self, unique: &str) -> Result<()> {
        if !self.is_remote() {
            return Ok(());
        }
        let mut first = None;
        for try_ in 1..=TRIES {
            let name = format!("probe/{unique}-{try_}");
            let asked = ask(self, &name).await;
            // The verdict counts whether or not the probe's object could be deleted; it is small.
            let cleaned = self.delete(&name).await;
            match asked? {
                Found::Creates => return cleaned,
                Found::Incompatible(why) if first == Some(why) => {
                    return Err(self.incompatible(why));
                }
                Found::Incompatible(why) => first = Some(why),
                Found::Unsure => {
                    tracing::debug!(name, "the server could not tell whether it creates once");
                }
            }
            tokio::time::sleep(PAUSE * try_).await;
        }
        let why = "the server answers conditional writes with a conflict each time, though no other process \
                   writes the object";
        Err(self.incompatible(first.unwrap_or(why)))
    }

    fn incompatible(&self, why: &str) -> JobsError {
        JobsError::Invalid(format!(
            "{}: {why}; agrpo needs conditional writes (PUT with If-None-Match: *), so that of two \
             workers with one stage a single record stands: AWS S3, Cloudflare R2, MinIO and \
             SeaweedFS from 4.17 have them; use one of those, or a folder",
            self.url()
        ))
    }
}

/// Creates one object twice.
async fn ask(objects: &Objects, name: &str) -> Result<Found> {
    let create = async |text: &'static str| {
        let created =
            objects.put(name, Bytes::from_static(text.as_bytes()), PutMode::Create, false);
        match created.await {
            Err(error) if is_of_condition(&error) => {
                // A server that refuses any write has something else against it, and says so.
                let (plain, bytes) = (name.replacen("probe", "plain", 1), Bytes::from_static(b""));
                objects.replace(&plain, bytes).await?;
                objects.delete(&plain).await.map(|()| None)
            }
            created => created.map(Some),
        }
    };
    let refuses = Ok(Found::Incompatible("the server refuses conditional writes"));
    match create("agrpo 1").await? {
        None => return refuses,
        Some(true) => {}
        // A first try whose answer was lost has created it after all; a conflict has not.
        Some(false) if objects.read(name).await?.is_some() => {}
        Some(false) => return Ok(Found::Unsure),
    }
    match create("agrpo 2").await? {
        None => return refuses,
        Some(false) => {}
        Some(true) => {
            return Ok(Found::Incompatible(
                "the server overlooks conditional writes: it created an object that was there already",
            ));
        }
    }
    Ok(match objects.read(name).await? {
        Some(found) if found == "agrpo 1" => Found::Creates,
        Some(_) => Found::Incompatible(
            "the server overlooks conditional writes: it says that it kept an object, and wrote over it",
        ),
        None => Found::Incompatible("the server says that an object is there, and it is not"),
    })
}
