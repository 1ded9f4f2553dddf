//! Servers that list in pages, in part or without end: a listing is complete or an error.

use bytes::Bytes;

use super::server::Server;
use crate::objects::open;
use crate::{JobsError, Store};

async fn store(server: &Server) -> Store {
    let opened = open("s3://results/agrpo", &super::settings(server.port)).await;
    Store::on(opened.unwrap())
}

/// A server that lists so many objects on a page; 0 for all.
fn pages(server: &Server, page: usize) {
    server.with(|state| (state.page, state.cuts_lists, state.lists_again) = (page, false, false));
}

/// One that lists so many objects and never says that there are more.
fn cut(server: &Server, page: usize) {
    server.with(|state| (state.page, state.cuts_lists) = (page, true));
}

#[tokio::test]
async fn a_listing_is_whole_or_refused() {
    let server = Server::start().await;
    let store = store(&server).await;
    for n in 0..7 {
        let name = format!("runs/r{n}/stages/s{n}");
        store.objects.replace(&name, Bytes::from_static(b"x")).await.unwrap();
    }
    let all = ["r0", "r1", "r2", "r3", "r4", "r5", "r6"];
    for page in [0, 3, 1, 7] {
        pages(&server, page);
        assert_eq!(store.objects.entries("runs").await.unwrap().len(), 7, "{page}");
        assert_eq!(store.objects.folders("runs").await.unwrap(), all, "{page}");
        assert!(store.objects.list("nothing").await.unwrap().is_empty());
        assert!(store.objects.folders("nothing").await.unwrap().is_empty());
    }
    for (page, part) in [(6, "leaves runs/r6/stages/s6 out"), (1, "leaves runs/r1/stages/s1 out")] {
        cut(&server, page);
        let folders = store.objects.folders("runs").await.map(drop);
        for found in [folders, store.objects.entries("runs").await.map(drop)] {
            let error = found.unwrap_err();
            assert!(matches!(error, JobsError::Invalid(_)), "{error}");
            assert!(error.to_string().contains(part), "{page}: {error}");
        }
    }
    pages(&server, 3);
    server.with(|state| state.lists_again = true);
    let error = store.objects.entries("runs").await.unwrap_err().to_string();
    assert!(error.contains("lists runs without end (8 objects so far)"), "{error}");
}

/// Consoles leave a mark for a folder, and some servers overlook the delimiter.
#[tokio::test]
async fn marks_of_folders_and_overlooked_delimiters_hide_no_run() {
    let server = Server::start().await;
    let store = store(&server).await;
    for name in ["runs/r0/run.json", "runs/r1/run.json", "runs/r1/versions.json"] {
        store.objects.replace(name, Bytes::from_static(b"x")).await.unwrap();
    }
    for overlooks in [false, true] {
        server.with(|state| state.overlooks_delimiters = overlooks);
        assert_eq!(store.objects.folders("runs").await.unwrap(), ["r0", "r1"], "{overlooks}");
        server.put("runs/", Bytes::new());
        assert_eq!(store.objects.folders("runs").await.unwrap(), ["r0", "r1"], "{overlooks}");
        cut(&server, 2);
        store.objects.folders("runs").await.unwrap_err();
        pages(&server, 0);
        server.with(|state| state.objects.remove("runs/"));
    }
}

/// What is written while a listing goes on may be in it or not, and is no fault.
#[tokio::test]
async fn what_is_written_meanwhile_is_no_fault_of_the_server() {
    let server = Server::start().await;
    let store = store(&server).await;
    store.objects.replace("runs/r0", Bytes::new()).await.unwrap();
    let writing = async {
        for n in 1..200 {
            server.put(&format!("runs/r{n:03}"), Bytes::new());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let listing = async {
        let mut listed = 0;
        while listed < 190 {
            match store.objects.entries("runs").await {
                Ok(entries) => listed = entries.len(),
                Err(error) => assert!(matches!(error, JobsError::Unavailable(_)), "{error}"),
            }
        }
    };
    tokio::join!(writing, listing);
}
