//! Copies of a server's blobs in files, hashed as they arrive.
//!
//! Wrong bytes are fetched again; the blob is lost where two passes find the same wrong digest.

use std::io::{self, Seek, Write};
use std::{fs::File, sync::Arc};

use agrpo_spec::ArtifactDigest;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{blobs::Cas, checked::Hashing, checked::OnDisk, files::Fetched};
use crate::{Result, metrics, paths, span::blocking};

/// Pieces of a blob between the connection and the hash at most.
pub(super) const UNDER_WAY: usize = 4;

/// Writes pieces into a file from its start as they come.
fn collect(mut file: File, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<Fetched> {
    let mut hashing = Hashing::default();
    file.rewind()?;
    while let Some(piece) = pieces.blocking_recv() {
        hashing.update(&piece);
        file.write_all(&piece)?;
    }
    let blocks = Arc::new(hashing.finish());
    Ok((OnDisk::checked(file, Arc::clone(&blocks)), blocks))
}

impl Cas {
    /// Copies a server's object into a file, again where its bytes are wrong. `Ok(Err(_))`: an error of the file.
    pub(super) async fn download(
        &self,
        digest: ArtifactDigest,
        size: u64,
        file: File,
    ) -> Result<io::Result<Fetched>> {
        let _place = self.streamed.place().await;
        let name = paths::blob(digest);
        match self.objects.size(&name).await? {
            None => return Err(self.missing(digest)),
            Some(found) if found != size => {
                return Err(self.lost(digest, format!("it has {found} bytes, expected {size}")));
            }
            Some(_) => {}
        }
        let read = || {
            let (sender, pieces) = mpsc::channel(UNDER_WAY);
            let target = file.try_clone();
            let collect = blocking(move || collect(target?, pieces));
            let stream = self.objects.stream(&name, size, sender);
            async move {
                let (sent, collected) = futures::join!(stream, collect);
                // A full disk also ends the stream with an error: the disk's is the cause.
                let fetched = match collected? {
                    Ok(fetched) => fetched,
                    Err(error) => return Ok(Some(Ok(Err(error)))),
                };
                sent?;
                metrics::count(metrics::READ, size);
                let found = fetched.1.digest;
                Ok(Some(if found == digest { Ok(Ok(fetched)) } else { Err((size, found)) }))
            }
        };
        self.sound(digest, self.objects.reread(&name, read).await?)
    }
}
