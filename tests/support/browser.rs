//! A real browser, headless, driven through WebDriver by a driver process of our own on a free port.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use super::http::free_address;

/// A window's width and height in pixels.
pub(crate) type Size = (u32, u32);
pub(crate) const TELEPHONE: Size = (360, 780);
pub(crate) const DESK: Size = (1200, 900);

/// No request leaves loopback, and nothing is stored.
const OPTIONS: [&str; 11] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
];

/// The driver, ended with its handle, and a browser with one window.
pub(crate) struct Browser {
    driver: Child,
    _profile: tempfile::TempDir,
    pub(crate) client: Client,
}

impl Browser {
    /// Starts both. A machine without Debian's chromium and chromium-driver fails here.
    pub(crate) async fn start((width, height): Size, dark: bool) -> Self {
        let port = free_address().port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is not installed: apt-get install chromium chromium-driver");
        let profile = tempfile::tempdir().unwrap();
        let mut arguments: Vec<String> = OPTIONS.map(str::to_owned).into();
        arguments.push(format!("--window-size={width},{height}"));
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        if dark {
            arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        // A window cannot be as narrow as a telephone, so the width is emulated.
        let metrics =
            json!({ "width": width, "height": height, "pixelRatio": 1.0, "touch": false });
        let options = json!({
            "goog:chromeOptions": {
                "args": arguments,
                "mobileEmulation": { "deviceMetrics": metrics },
            },
        });
        let capabilities = options.as_object().unwrap().clone();
        let begin = Instant::now();
        let client = loop {
            let connected = ClientBuilder::new(HttpConnector::new())
                .capabilities(capabilities.clone())
                .connect(&format!("http://127.0.0.1:{port}"))
                .await;
            match connected {
                Ok(client) => break client,
                Err(error) if begin.elapsed() > Duration::from_secs(60) => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        Self { driver, _profile: profile, client }
    }

    /// Opens a page.
    pub(crate) async fn go(&self, page: &str) {
        self.client.goto(page).await.unwrap();
    }

    /// Clicks what a selector names first.
    pub(crate) async fn click(&self, selector: &str) {
        // In one step: a live page may put another one in its place between finding and clicking.
        self.ask(&format!("document.querySelector('{selector}').click()")).await;
    }

    /// Waits until a script returns true.
    pub(crate) async fn until(&self, what: &str, script: &str) {
        let begin = Instant::now();
        loop {
            let answer = self.client.execute(script, vec![]).await;
            if matches!(&answer, Ok(Value::Bool(true))) {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "not seen: {what}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The result of a script.
    pub(crate) async fn ask(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    /// Takes a screenshot.
    pub(crate) async fn picture(&self, path: &Path) {
        std::fs::write(path, self.client.screenshot().await.unwrap()).unwrap();
    }

    /// Closes the browser; the driver ends with its handle.
    pub(crate) async fn close(self) {
        self.client.clone().close().await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
