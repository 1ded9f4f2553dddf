//! Pages in a real browser: a growing curve, a failure, the trajectory player, a report from disk without a network; in
//! the sizes of a telephone and of a desktop, dark and light.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fantoccini::Locator;
use fantoccini::key::Key;

use crate::report::Served;
use crate::support::browser::{Browser, DESK, TELEPHONE};
use crate::support::program::Program;

/// Nothing is wider than the window, and every control has a name.
const SOUND: &str = "
    const wide = document.documentElement.scrollWidth > window.innerWidth;
    const named = [...document.querySelectorAll('button,input,a')].every((element) =>
        (element.getAttribute('aria-label') || element.textContent).trim() !== '');
    return !wide && named;";
/// Points of the curve of rewards; more than when it was last asked.
const GROWN: &str = "
    const points = document.querySelectorAll('#chart-reward circle').length;
    const grown = points > (window.seen || 0);
    window.seen = points;
    return grown;";

/// The folder of screenshots; `make pictures` takes those of the guide from there.
fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_curve_grows_while_the_run_goes_on_and_a_trajectory_plays() {
    let program = Program::new(&[]);
    program.change("iterations = 4", "iterations = 60");
    let mut run = program.start(&["run", "run.toml", "--workers", "1"]);
    while !program.folder().join(".agrpo").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let served = Served::start(&program, &["--listen", "127.0.0.1:0"]);
    let browser = Browser::start(DESK, false).await;
    browser.go(&format!("http://{}/", served.address)).await;
    browser.until("the run in the list", "return document.querySelector('#runs a') !== null").await;
    browser.click("#runs a").await;
    for _ in 0..3 {
        browser.until("the curve to grow", GROWN).await;
    }
    assert_eq!(browser.ask("return window.seen > 2").await, true);
    run.wait().unwrap();
    let done = "return document.querySelector('#summary b').textContent === 'done'";
    browser.until("the end", done).await;
    browser.picture(&pictures().join("live.png")).await;
    let page = browser.client.current_url().await.unwrap();
    browser.go(&format!("{page}/samples")).await;
    play(&browser).await;
    browser.picture(&pictures().join("viewer.png")).await;
    browser.close().await;

    let telephone = Browser::start(TELEPHONE, true).await;
    for path in ["", "/samples", "/lineage"] {
        telephone.go(&format!("{page}{path}")).await;
        assert_eq!(telephone.ask(SOUND).await, true, "{path} on a telephone");
    }
    telephone.go(page.as_str()).await;
    telephone
        .until(
            "a connection",
            "return document.querySelector('#connection').textContent === 'live'",
        )
        .await;
    telephone.picture(&pictures().join("live-360.png")).await;
    play_on(&telephone, &format!("{page}/samples")).await;
    telephone.close().await;
}

async fn play_on(browser: &Browser, page: &str) {
    browser.go(page).await;
    play(browser).await;
}

/// Plays the first trajectory by keyboard, from all masks to the end.
async fn play(browser: &Browser) {
    browser.until("a viewer", "return document.querySelector('.viewer button') !== null").await;
    let first = "document.querySelector('.viewer')";
    let masks = format!("return {first}.querySelectorAll('.masked').length");
    let all = browser.ask(&format!("return {first}.querySelectorAll('.token').length")).await;
    let press = async |name: &str, key: Key| {
        let control = format!(".viewer [aria-label=\"{name}\"]");
        let found = browser.client.find(Locator::Css(&control)).await.unwrap();
        found.send_keys(&char::from(key).to_string()).await.unwrap();
    };
    press("to the beginning", Key::Enter).await;
    assert_eq!(browser.ask(&masks).await, all, "at first everything is masked");
    press("unmask step", Key::Right).await;
    assert!(browser.ask(&masks).await.as_u64() < all.as_u64(), "a step writes tokens");
    let text = browser.ask(&format!("return {first}.querySelector('.wrote').textContent")).await;
    assert!(text.as_str().unwrap().ends_with('%'), "with their probabilities: {text}");
    press("play", Key::Enter).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    browser
        .until("the end", &format!("return {first}.querySelectorAll('.masked').length === 0"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_opens_from_the_list_of_runs() {
    let program = Program::new(&[]);
    program.change("\nlearning_rate = 1e-3", "\nlearning_rate = 1e30");
    let said = program.run(&["run", "run.toml"]);
    assert_eq!(said.code, Some(6), "{}", said.stderr);
    let served = Served::start(&program, &["--listen", "127.0.0.1:0"]);
    for (size, dark, name) in [(TELEPHONE, true, "failure-360.png"), (DESK, false, "failure.png")] {
        let browser = Browser::start(size, dark).await;
        browser.go(&format!("http://{}/", served.address)).await;
        browser.click("#runs a.bad").await;
        browser.until("the failure", "return document.querySelector('.failure') !== null").await;
        let text = browser.ask("return document.querySelector('.failure').innerText").await;
        let text = text.as_str().unwrap();
        for part in ["training has diverged; lower the learning rate", "agrpo retry", "attempt"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(browser.ask(SOUND).await, true);
        browser.picture(&pictures().join(name)).await;
        browser.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_from_disk_needs_no_network_and_fits_a_telephone() {
    let program = Program::new(&[]);
    program.json(&["run", "run.toml", "--json"]);
    assert_eq!(program.run(&["report", "bytes", "-o", "r.html"]).code, Some(0));
    let file = format!("file://{}", program.folder().join("r.html").display());
    for (size, dark, name) in [(TELEPHONE, true, "report-360.png"), (DESK, false, "report.png")] {
        let browser = Browser::start(size, dark).await;
        browser.go(&file).await;
        assert_eq!(browser.ask(SOUND).await, true, "{name}");
        let charts = "return document.querySelectorAll('figure svg').length";
        assert!(browser.ask(charts).await.as_u64() > Some(5));
        let fetched = "return performance.getEntriesByType('resource').length";
        assert_eq!(browser.ask(fetched).await, 0, "nothing is asked for");
        let ground = browser.ask("return getComputedStyle(document.body).backgroundColor").await;
        assert_eq!(ground.as_str() == Some("rgb(20, 23, 27)"), dark, "{ground}");
        play(&browser).await;
        browser.ask("window.scrollTo(0, 0)").await;
        browser.picture(&pictures().join(name)).await;
        browser.close().await;
    }
}
