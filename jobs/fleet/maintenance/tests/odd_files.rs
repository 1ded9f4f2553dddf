//! Everything that is no file, wherever a store or an import meets it: named by its kind, never waited
//! for, and deleted by no gc. A wait fails the test.

use std::os::unix::{fs::symlink, net::UnixListener};
use std::{future::Future, sync::mpsc, time::Duration};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use agrpo_store::{JobsError, OF_RUNS, fetch};

use crate::gc::{GcOptions, gc};
use crate::testing::{TestStore, fake, finish, finished, run};
use crate::verify::{Cure, verify};

/// Runs to the end, or fails: what waits for ever on a file keeps a thread, not the test.
fn in_time<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work());
        done.send(()).ok();
    });
    ended.recv_timeout(Duration::from_secs(60)).expect("it failed, or waits for what is no file");
}

type Make = fn(&std::path::Path);

/// Each kind with its name in messages; whether it is a link or a file of its own is all one.
const KINDS: [(&str, Make); 6] = [
    ("a FIFO", |path| mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap()),
    ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
    ("a folder", |path| std::fs::create_dir(path).unwrap()),
    ("a character device", |path| symlink("/dev/zero", path).unwrap()),
    ("a symbolic link that leads nowhere", |path| symlink("nowhere", path).unwrap()),
    ("a symbolic link that leads nowhere", |path| {
        symlink(path.file_name().unwrap(), path).unwrap();
    }),
];

/// In the place of a file.
fn replace(test: &TestStore, name: &str, make: Make) {
    let path = test.path(name);
    std::fs::remove_file(&path).unwrap();
    // The path of a socket is short; tests of one process must not meet in it.
    let short = tempfile::tempdir_in("/tmp").unwrap();
    let folder = short.path().join("f");
    symlink(path.parent().unwrap(), &folder).unwrap();
    make(&folder.join(path.file_name().unwrap()));
}

const AT_ONCE: GcOptions = GcOptions { grace: Duration::ZERO, dry_run: false };

#[test]
fn nothing_in_a_store_is_waited_for_or_taken() {
    in_time(|| async {
        for (kind, make) in KINDS {
            let test = TestStore::file().await;
            finished(&test.store, run(), 2).await;
            let stage = test.store.records.all_stages().await.unwrap()[7];
            let manifest = test.store.records.manifest(stage).await.unwrap().unwrap();
            let blob = manifest.outputs.values().next().unwrap().digest;
            let stray = agrpo_spec::ArtifactDigest::of(b"stray");
            std::fs::write(test.path(&format!("cas/{stray}")), b"stray").unwrap();
            let objects = [format!("cas/{blob}"), format!("cas/{stray}")];
            for object in &objects {
                replace(&test, object, make);
            }
            let report = verify(&test.reopened(), None).await.unwrap();
            let found = |object: &String| {
                let mut found = report.corrupt.iter().chain(&report.missing);
                found.find(|finding| finding.object == *object).map(|found| found.detail.clone())
            };
            assert!(found(&objects[1]).unwrap().starts_with(kind), "{report:?}");
            found(&objects[0]).unwrap();
            let report = gc(&test.store, AT_ONCE).await.unwrap();
            let odd: Vec<_> = report.odd.iter().map(|odd| (&odd.name, odd.kind)).collect();
            let mut expected: Vec<_> = objects.iter().map(|object| (object, kind)).collect();
            expected.sort();
            assert_eq!(odd, expected);
            for object in &objects {
                assert!(test.path(object).symlink_metadata().is_ok(), "{object} stays");
            }
            // Its own record is asked for by many, and answered with what it is.
            replace(&test, &format!("stages/{stage}"), make);
            let store = test.reopened();
            let error = store.records.manifest(stage).await.unwrap_err();
            assert!(matches!(error, JobsError::Data(_)), "{error}");
            let message = error.to_string();
            assert!(message.contains(kind) && message.contains(&stage.to_string()), "{message}");
            // Asked for by its digest, it is that stage.
            assert_eq!(store.records.resolve_stage(&stage.to_string()).await.unwrap(), stage);
            let object = format!("stages/{stage}");
            for asked in [None, Some(run().id())] {
                let report = verify(&store, asked).await.unwrap();
                let found = report.findings().find(|finding| finding.object == object).unwrap();
                assert_eq!(found.cure, Cure::MoveAway, "{kind}: {report:?}");
            }
            let asked = store.records.resolve_run("small").await;
            assert_eq!(asked.unwrap(), run().id());
        }
    });
}

#[test]
fn a_record_of_a_run_is_named_by_its_kind() {
    in_time(|| async {
        for (kind, make) in KINDS {
            for record in ["run.json", "retention.json", "versions.json", "control.json"] {
                let test = TestStore::file().await;
                finished(&test.store, run(), 2).await;
                let (id, name) = (run().id(), format!("runs/{}/{record}", run().id()));
                std::fs::write(test.path(&name), b"{}").unwrap();
                replace(&test, &name, make);
                let store = test.reopened();
                let report = verify(&store, None).await.unwrap();
                let said = format!("{report:?}");
                let found = report.corrupt.iter().find(|finding| finding.object == name).unwrap();
                assert!(found.detail.starts_with(kind), "{kind} as {record}: {said}");
                assert_eq!((found.cure, report.corrupt.len()), (Cure::MoveAway, 1), "{said}");
                // What a run can do without is not asked for.
                let is_asked = ["run.json", "retention.json"].contains(&record);
                drop((
                    store.records.retention(id).await,
                    store.records.control(id).await,
                    store.records.versions(id).await,
                ));
                match gc(&store, AT_ONCE).await {
                    Err(error) => {
                        assert!(is_asked, "{kind} as {record}: {error}");
                        let message = error.to_string();
                        assert!(message.contains("; move it away; nothing was swept"), "{message}");
                        let forget = format!("agrpo forget {} --force", id.short());
                        assert!(
                            message.contains(&forget) && !message.contains("start the run"),
                            "{message}"
                        );
                    }
                    Ok(_) => assert!(record != "run.json", "{kind}"),
                }
                store.records.forget_run(id).await.unwrap();
                assert!(!test.path(&format!("runs/{id}")).exists());
                gc(&store, AT_ONCE).await.unwrap();
                assert!(verify(&store, None).await.unwrap().is_clean());
            }
        }
    });
}

/// A note, an entry of the index, and whatever else lies in a run's folders.
#[test]
fn nothing_of_a_run_ends_a_verify_before_its_end() {
    in_time(|| async {
        for (kind, make) in KINDS {
            let test = TestStore::file().await;
            finished(&test.store, run(), 2).await;
            let id = run().id();
            let key = "update-000002".parse().unwrap();
            let stage = test.store.records.recorded_stages(id).await.unwrap()[&key];
            let mut expected = vec![];
            for file in [
                "policies/update-000002".to_owned(),
                format!("stages/{key}.{stage}"),
                format!("failures/{stage}"),
                format!("dropped/{stage}"),
                format!("rewound/{stage}.1"),
                "twice/any".to_owned(),
            ] {
                let name = format!("runs/{id}/{file}");
                std::fs::create_dir_all(test.path(&name).parent().unwrap()).unwrap();
                std::fs::write(test.path(&name), b"").unwrap();
                replace(&test, &name, make);
                expected.push(name);
            }
            // Found as well, behind all of these.
            let blob =
                test.store.records.manifest(stage).await.unwrap().unwrap().output("optimizer");
            let blob = format!("cas/{}", blob.unwrap());
            test.flip(&blob);
            expected.push(blob);
            expected.sort();
            for asked in [None, Some(id)] {
                let report = verify(&test.reopened(), asked).await.unwrap();
                let found: Vec<_> = report.findings().map(|found| found.object.clone()).collect();
                assert_eq!(found, expected, "{kind}: {report:#?}");
                let odd = report.corrupt.iter().filter(|found| found.cure == Cure::MoveAway);
                assert_eq!(odd.clone().count(), expected.len() - 1);
                assert!(odd.clone().all(|found| found.detail.starts_with(kind)), "{report:?}");
            }
        }
    });
}

/// In the place of a folder: whatever is asked is refused with its name, and nothing is taken for empty.
#[test]
fn a_folder_of_a_store_that_is_none_is_never_taken_for_an_empty_one() {
    in_time(|| async {
        let file: Make = |path| std::fs::write(path, b"").unwrap();
        let others = KINDS.into_iter().filter(|(kind, _)| *kind != "a folder");
        for (kind, make) in others.chain([("a file", file)]) {
            let id = run().id();
            for folder in ["cas", "stages", "specs", "runs", "aside"] {
                let test = TestStore::file().await;
                finished(&test.store, run(), 2).await;
                let path = test.path(folder);
                std::fs::create_dir_all(&path).unwrap();
                std::fs::rename(&path, test.path("gone")).unwrap();
                std::fs::write(&path, b"").unwrap();
                replace(&test, folder, make);
                let store = test.reopened();
                let report = verify(&store, None).await.unwrap();
                let found = report.findings().next().unwrap();
                assert_eq!((&*found.object, report.findings().count()), (folder, 1), "{report:?}");
                assert_eq!(found.detail, format!("{kind}, expected a folder"));
                let asked = match folder {
                    // Written to alone.
                    "aside" => store.objects.now_ms().await.map(drop),
                    // Only a fleet asks for them.
                    "specs" => {
                        let plan = agrpo_spec::Plan::new(run());
                        let spec = plan.pending().values().next().unwrap();
                        store.records.put_spec(spec.digest(), spec).await
                    }
                    _ => finish(&store, run(), fake(), 1).await.0.map(drop),
                };
                let error = asked.unwrap_err();
                let message = format!("{} is {kind}, expected a folder", path.display());
                assert!(matches!(error, JobsError::Data(_)), "{folder}: {error}");
                assert!(error.to_string().contains(&message), "{folder}: {error}");
                if folder != "specs" {
                    let error = gc(&store, AT_ONCE).await.unwrap_err();
                    assert!(error.to_string().contains(&message), "{folder}: {error}");
                }
            }
            for folder in OF_RUNS {
                let test = TestStore::file().await;
                finished(&test.store, run(), 2).await;
                let name = format!("runs/{id}/{folder}");
                std::fs::remove_dir_all(test.path(&name)).ok();
                std::fs::write(test.path(&name), b"").unwrap();
                replace(&test, &name, make);
                let report = verify(&test.reopened(), None).await.unwrap();
                let found = report.findings().find(|found| found.object == name).unwrap();
                assert_eq!(found.detail, format!("{kind}, expected a folder"), "{report:?}");
                test.store.records.forget_run(id).await.unwrap();
                assert!(!test.path(&format!("runs/{id}")).exists());
            }
        }
    });
}

#[test]
fn what_is_imported_or_fetched_has_to_be_a_file() {
    in_time(|| async {
        for (kind, make) in KINDS {
            let test = TestStore::file().await;
            let model = test.path("model");
            std::fs::create_dir(&model).unwrap();
            std::fs::write(model.join("config.json"), b"{}").unwrap();
            replace(&test, "model/config.json", make);
            let path = model.join("config.json");
            let refused = [
                fetch(path.to_str().unwrap(), &[]).await.map(drop),
                test.store.cas.import_folder(&model, |_| Ok(())).await.map(drop),
            ];
            for (n, refused) in refused.into_iter().enumerate() {
                // A folder within a folder is left out, as all others are.
                if n == 1 && kind == "a folder" {
                    refused.unwrap();
                    continue;
                }
                let error = refused.unwrap_err();
                assert!(matches!(error, JobsError::Invalid(_)), "{error}");
                let message = error.to_string();
                assert!(message.contains("config.json") || message.contains("/model"), "{message}");
                assert!(message.contains(kind) || kind.contains("nowhere"), "{message}");
            }
        }
    });
}
