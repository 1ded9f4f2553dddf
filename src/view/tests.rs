//! Pages of long runs and of runs with hostile texts. Stages are stubs, so no libtorch is needed.

use ratatui::{Terminal, backend::TestBackend};

use agrpo_spec::{Appended, Run, StageKey};
use agrpo_store::paths;

use crate::report::{Subject, report};
use crate::statistics::{interval, pass_at};
use crate::testing::{HOSTILE, Looks, Served, finished, finished_run, hub, run_file};
use crate::{figures, page, samples};
use crate::{history::RunHistory, serve::router, watch::Glance};

/// A report of a run of 2,000 iterations has at most 5 MB, and a second look at it finds nothing new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_two_thousand_iterations_is_shown() {
    let (store, run) = finished_run(2000, Looks::Plain).await;
    let subject = Subject::read(&store, run, |_| String::new()).await.unwrap();
    let html = report(&[subject], "agrpo").unwrap();
    let count = html.matches("</tr>").count();
    assert!(count > 2000, "the lineage has every update: {count}");
    assert!(html.len() < 5_000_000, "{} bytes", html.len());

    let hub = hub(store);
    let mut changes = hub.changes();
    for (look, is_news) in [("first", true), ("second", false)] {
        hub.read_on().await;
        assert_eq!(changes.has_changed().unwrap(), is_news, "{look}");
        changes.mark_unchanged();
    }
    let served = Served::start(router(hub)).await;
    let id = run.short();
    let pages = ["", "/samples", "/lineage"].map(|page| format!("/runs/{id}{page}"));
    for path in ["/".to_owned()].into_iter().chain(pages) {
        assert_eq!(served.ask(&path).await.0, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_completion_holds_is_text_wherever_it_is_shown() {
    let (store, run) = finished_run(2, Looks::Hostile).await;
    let history = RunHistory::read(&store, run).await.unwrap();
    let found = samples::of_iteration(&store, &history, 2).await.unwrap();
    assert!(found[0].trajectory.completion().contains(HOSTILE), "{found:?}");
    for sample in &found {
        let html = page::sample(sample).into_string();
        assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
        assert!(html.contains("&lt;script&gt;"), "it is there, as text: {html}");
    }
    let subject = Subject::read(&store, run, |_| HOSTILE.to_owned()).await.unwrap();
    let html = report(&[subject], "agrpo").unwrap();
    assert_eq!(html.matches("<script>").count(), 1, "the viewer's own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_is_read_on_from_where_it_stood() {
    let (store, run) = finished_run(3, Looks::Plain).await;
    let mut history = RunHistory::read(&store, run).await.unwrap();
    let stages = history.stages.len();
    assert_eq!(history.iteration(), 3);
    assert!(!history.read_on(&store).await.unwrap(), "nothing has come since");
    assert_eq!(history.stages.len(), stages);
    let charts = figures::all(&[figures::Shown { name: "a", history: &history }]);
    let names: Vec<_> = charts.iter().map(|chart| chart.name).collect();
    insta::assert_snapshot!(names.join(" "), @"reward accuracy steps reward-parts gradient-norm clip-share entropy length seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_glance_fits_any_terminal_and_draws_both_curves() {
    let (store, run) = finished_run(40, Looks::Plain).await;
    let hub = hub(store);
    hub.read_on().await;
    let history = hub.history(run).await.unwrap().read().await.clone();
    let (runs, crew) = (hub.runs().await, hub.crew().await);
    let glance = Glance { runs, chosen: 0, history: Some(history), crew };
    let drawn = |width, height| {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| glance.draw(frame)).unwrap();
        terminal.backend().to_string()
    };
    let usual = drawn(80, 24);
    for part in ["long", "done", "40 of 40", "reward", "accuracy 50.0%", "q: quit"] {
        assert!(usual.contains(part), "{part}:\n{usual}");
    }
    let dots = usual.chars().filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count();
    assert!(dots > 20, "curves:\n{usual}");
    // Windows are dragged to any size.
    for (width, height) in [(1, 1), (20, 5), (300, 100)] {
        drawn(width, height);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_cannot_be_read_is_a_row_of_the_page_and_of_the_terminal() {
    let (folder, run) = (tempfile::tempdir().unwrap(), "7".repeat(64));
    std::fs::create_dir_all(folder.path().join("runs").join(&run)).unwrap();
    let store = agrpo_store::Store::open(folder.path().to_str().unwrap(), &[]).await.unwrap();
    let hub = hub(store.clone());
    hub.read_on().await;
    let (runs, crew) = (hub.runs().await, hub.crew().await);
    let glance = Glance { runs, chosen: 0, history: None, crew };
    let mut terminal = Terminal::new(TestBackend::new(120, 24)).unwrap();
    terminal.draw(|frame| glance.draw(frame)).unwrap();
    let drawn = terminal.backend().to_string();
    assert!(drawn.contains("unreadable: runs/7777"), "{drawn}");
    let served = Served::start(router(hub)).await;
    let (code, body) = served.ask("/").await;
    assert_eq!(code, 200);
    assert!(body.contains("unreadable: ") && body.contains("run.json is missing"), "{body}");
    assert!(body.contains("href=\"/runs/777777777777\""), "{body}");
    // Its own page says why; the charts of the others do not need it.
    for name in ["777777777777", &run] {
        let (code, body) = served.ask(&format!("/runs/{name}")).await;
        assert_eq!(code, 200);
        assert!(body.contains("This run cannot be read: "), "{body}");
        assert!(body.contains("run.json is missing"), "{body}");
        for page in ["samples", "lineage"] {
            let (code, body) = served.ask(&format!("/runs/{name}/{page}")).await;
            assert_eq!(code, 404, "{page}");
            assert!(body.contains("run.json is missing"), "{body}");
        }
    }
    assert_eq!(served.ask("/runs/8888").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_named_on_the_page_of_its_run() {
    let (folder, run) = (
        tempfile::tempdir().unwrap(),
        agrpo_spec::Run::parse(&crate::testing::run_file(1)).unwrap(),
    );
    let store = agrpo_store::Store::open(folder.path().to_str().unwrap(), &[]).await.unwrap();
    store.records.put_run(&run).await.unwrap();
    let at = folder.path().join(format!("runs/{}", run.id()));
    let names = ["control.json".to_owned(), format!("failures/{}", "5".repeat(64))];
    for name in names.iter().chain([&format!("rewound/{}.1", "5".repeat(64))]) {
        let path = at.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "garbage").unwrap();
    }
    let hub = hub(store);
    hub.read_on().await;
    let served = Served::start(router(hub)).await;
    let (code, body) = served.ask(&format!("/runs/{}", run.id().short())).await;
    assert_eq!(code, 200);
    for part in ["<b>unreadable</b>", "control.json in ", "/failures/5555", "/rewound/5555"] {
        assert!(body.contains(part), "{part}: {body}");
    }
    let (code, body) = served.ask("/").await;
    assert_eq!(code, 200);
    assert!(body.contains("control.json in ") && body.contains("/failures/5555"), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_made_again_is_a_change() {
    let (folder, run) = (
        tempfile::tempdir().unwrap(),
        agrpo_spec::Run::parse(&crate::testing::run_file(1)).unwrap(),
    );
    let store = agrpo_store::Store::open(folder.path().to_str().unwrap(), &[]).await.unwrap();
    store.records.put_run(&run).await.unwrap();
    let mut history = RunHistory::read(&store, run.id()).await.unwrap();
    assert!(!history.read_on(&store).await.unwrap(), "nothing has come since");
    let stage = "5".repeat(64);
    let rewound = serde_json::json!({
        "stage": stage, "key": null, "lost": null, "why": "corrupt-manifest", "needed_by": null,
        "worker": "w", "unix_ms": 1,
    });
    let at = folder.path().join(format!("runs/{}/rewound", run.id()));
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join(format!("{stage}.1")), agrpo_spec::record::seal(&rewound)).unwrap();
    assert!(history.read_on(&store).await.unwrap(), "a live page counts recomputed results");
    assert!(!history.read_on(&store).await.unwrap());
}

/// Two shards with half of four problems right each: half of eight, with the interval of eight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_in_shards_is_shown_once_all_are_there_with_the_interval_of_all_problems() {
    let mut config = Run::parse(&run_file(2)).unwrap().config().clone();
    config.evaluation.shards = Appended(Some(2));
    let (store, run) = finished(Run::resolve(config).unwrap(), Looks::Plain).await;
    let subject = async || Subject::read(&store, run, |_| String::new()).await.unwrap();
    let whole = subject().await;
    let base = &whole.history.evaluations[&0];
    assert_eq!((base.problems, &base.results[0].solved_by), (8, &vec![4, 4]));
    let of_eight = pass_at(&[4, 4], 1).unwrap().interval;
    assert_eq!((base.results[0].accuracy, interval(&base.results[0])), (0.5, Some(of_eight)));
    let html = report(&[whole], "agrpo").unwrap();
    assert!(html.contains("accuracy, base") && !html.contains("of 2 shards"));

    let lost = store.records.recorded_stages(run).await.unwrap();
    let lost = lost[&StageKey::evaluation(0, Some(1))];
    store.objects.delete(&paths::manifest(lost)).await.unwrap();
    let part = subject().await;
    assert_eq!(part.history.evaluations.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(part.history.lost_evaluations(), 0, "the record is lost, not a document");
    let html = report(&[part], "agrpo").unwrap();
    assert!(html.contains("1 of 2 shards") && !html.contains("accuracy, base"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_fused_updates_has_the_charts_of_one_without() {
    let charts = async |fused| {
        let mut config = Run::parse(&run_file(3)).unwrap().config().clone();
        config.estimator.fused_updates = fused;
        let (store, run) = finished(Run::resolve(config).unwrap(), Looks::Plain).await;
        let history = RunHistory::read(&store, run).await.unwrap();
        assert_eq!(history.iteration(), 3);
        let shown = figures::Shown { name: "run", history: &history };
        figures::all(&[shown]).into_iter().map(|chart| chart.name).collect::<Vec<_>>()
    };
    let fused = charts(true).await;
    assert!(fused.contains(&"gradient-norm") && fused.contains(&"clip-share"), "{fused:?}");
    assert_eq!(fused, charts(false).await);
}
