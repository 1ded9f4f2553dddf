//! Servers that list in pages, in part or without end: what is listed is all there is, or an error.

use bytes::Bytes;

use super::server::Server;
use crate::fake_s3::Listing;
use crate::gc::{GcOptions, gc};
use crate::store::open;
use crate::testing::{finished, run, run_seeded};
use crate::{JobsError, Store};

async fn store(server: &Server) -> Store {
    let backend = open::open("s3://results/agrpo", &super::settings(server.port)).await;
    Store::on(backend.unwrap())
}

#[tokio::test]
async fn a_listing_is_whole_or_refused() {
    let server = Server::start().await;
    let store = store(&server).await;
    for n in 0..7 {
        let name = format!("runs/r{n}/stages/s{n}");
        store.backend.replace(&name, Bytes::from_static(b"x")).await.unwrap();
    }
    for listing in [Listing::Whole, Listing::Pages(3), Listing::Pages(1), Listing::Cut(7)] {
        server.with(|state| state.listing = listing);
        assert_eq!(store.backend.entries("runs").await.unwrap().len(), 7, "{listing:?}");
        let mut folders = store.backend.folders("runs").await.unwrap();
        folders.sort_unstable();
        assert_eq!(folders, ["r0", "r1", "r2", "r3", "r4", "r5", "r6"], "{listing:?}");
        assert!(store.backend.list("nothing").await.unwrap().is_empty());
    }
    for (listing, part) in
        [(Listing::Cut(6), "leaves runs/r6/stages/s6 out"), (Listing::Cut(1), "r1")]
    {
        server.with(|state| state.listing = listing);
        let folders = store.backend.folders("runs").await.map(drop);
        for found in [folders, store.backend.entries("runs").await.map(drop)] {
            let error = found.unwrap_err();
            assert!(matches!(error, JobsError::Invalid(_)), "{error}");
            assert!(error.to_string().contains(part), "{listing:?}: {error}");
        }
    }
    server.with(|state| state.listing = Listing::Round(3));
    let error = store.backend.entries("runs").await.unwrap_err().to_string();
    assert!(error.contains("without end (4 objects so far)"), "{error}");
}

#[tokio::test]
async fn nothing_is_swept_where_a_server_lists_in_part() {
    let server = Server::start().await;
    let store = store(&server).await;
    finished(&store, run(), 2).await;
    finished(&store, run_seeded("other", 2, 2, 9), 2).await;
    let objects = || server.with(|state| state.objects.len());
    let before = objects();
    let all = GcOptions { grace: std::time::Duration::ZERO, dry_run: false };
    for page in [1, 10, 40] {
        server.with(|state| state.listing = Listing::Cut(page));
        let error = gc(&store.fresh(), all).await.unwrap_err();
        assert!(matches!(error, JobsError::Invalid(_)), "{page}: {error}");
        assert_eq!(objects(), before, "{page}");
        server.with(|state| state.listing = Listing::Pages(page));
        let report = gc(&store.fresh(), all).await.unwrap();
        assert!(report.swept.is_empty(), "{page}: {report:?}");
        assert_eq!((report.runs, objects()), (2, before), "{page}");
    }
}
