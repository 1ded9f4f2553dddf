//! Checks that a server creates an object only where none exists: the publication of a stage by two workers relies on
//! it.
//!
//! Runs once before anything is written, with objects of unique names, which are deleted afterwards. Servers that
//! refuse `If-None-Match: *` and servers that ignore it are both refused, with the reason. A conflict (409) decides
//! nothing, so the server is asked again; a refusal has to come twice. A local store is not probed: its file system
//! creates exclusively.

use std::time::Duration;

use bytes::Bytes;
use object_store::PutMode;

use super::{answer::is_of_condition, client::Objects};
use crate::{JobsError, Result, paths};

/// Rounds of a probe without a definite answer at most.
const TRIES: u32 = 6;
/// The pause after the first round; it grows by as much with each.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 300 });

/// What one round found out.
enum Found {
    /// The server does what it should.
    Creates,
    /// It does not, for this reason.
    Incompatible(&'static str),
    /// It answered with a conflict.
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
            let [name, plain] = paths::probes(unique, try_);
            let asked = ask(self, &name, &plain).await;
            // A refusal is reported even where the probe's object, which is small, cannot be deleted.
            let cleaned = self.delete(&name).await;
            match asked? {
                Found::Creates => return cleaned,
                Found::Incompatible(why) if first == Some(why) => {
                    return Err(self.incompatible(why));
                }
                Found::Incompatible(why) => first = Some(why),
                Found::Unsure => {
                    tracing::debug!(name, "the server did not say whether it creates once");
                }
            }
            tokio::time::sleep(PAUSE * try_).await;
        }
        let why = "the server answers conditional writes with a conflict each time, though no other process \
                   writes the object";
        Err(self.incompatible(first.unwrap_or(why)))
    }

    fn incompatible(&self, why: &str) -> JobsError {
        JobsError::invalid(format!(
            "{}: {why}; agrpo needs conditional writes (PUT with If-None-Match: *), so that of two \
             workers with one stage a single record stands: AWS S3, Cloudflare R2, MinIO and \
             SeaweedFS from 4.17 have them; use one of those, or a folder",
            self.url()
        ))
    }
}

/// Creates one object twice.
async fn ask(objects: &Objects, name: &str, plain: &str) -> Result<Found> {
    let create = async |text: &'static str| {
        let created =
            objects.put(name, Bytes::from_static(text.as_bytes()), PutMode::Create, false);
        match created.await {
            Err(error) if is_of_condition(&error) => {
                // A server that refuses this one as well has another reason, which is the error.
                objects.replace(plain, Bytes::new()).await?;
                objects.delete(plain).await.map(|()| None)
            }
            created => created.map(Some),
        }
    };
    let refuses = Ok(Found::Incompatible("the server refuses conditional writes"));
    match create("agrpo 1").await? {
        None => return refuses,
        Some(true) => {}
        // A try whose answer was lost may have created the object; a conflict has not.
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
            "the server overlooks conditional writes: it reports that an object exists, and overwrote it",
        ),
        None => Found::Incompatible("the server reports that an object exists which does not"),
    })
}
