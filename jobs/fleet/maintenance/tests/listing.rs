//! A server that lists only part of what it holds: a gc changes nothing.

use agrpo_store::{JobsError, Store};

use crate::gc::{GcOptions, gc};
use crate::testing::{fake_s3::Server, finished, run, run_seeded};

#[tokio::test]
async fn nothing_is_swept_where_a_server_lists_in_part() {
    let server = Server::start().await;
    let settings = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", server.port)),
        ("AWS_ACCESS_KEY_ID", "visitor".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let store = Store::open("s3://results/agrpo", &settings).await.unwrap();
    finished(&store, run(), 2).await;
    finished(&store, run_seeded("other", 2, 2, 9), 2).await;
    let objects = || server.with(|state| state.objects.len());
    let before = objects();
    let all = GcOptions { grace: std::time::Duration::ZERO, dry_run: false };
    for page in [1, 10, 40] {
        server.with(|state| (state.page, state.cuts_lists) = (page, true));
        let error = gc(&store.fresh(), all).await.unwrap_err();
        assert!(matches!(error, JobsError::Invalid(_)), "{page}: {error}");
        assert_eq!(objects(), before, "{page}");
        server.with(|state| state.cuts_lists = false);
        let report = gc(&store.fresh(), all).await.unwrap();
        assert!(report.swept.is_empty(), "{page}: {report:?}");
        assert_eq!((report.runs, objects()), (2, before), "{page}");
    }
}
