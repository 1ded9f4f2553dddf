//! A real browser, headless, driven through WebDriver by a driver process of our own on a free port.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder};
use serde_json::json;

use super::http::free_address;

/// The driver, ended with its handle, and a browser of a given width.
pub(crate) struct Browser {
    driver: Child,
    profile: tempfile::TempDir,
    pub(crate) client: Client,
}

impl Browser {
    /// Starts both. A machine without Debian's chromium and chromium-driver fails here.
    pub(crate) async fn start(width: u32, height: u32, dark: bool) -> Self {
        let port = free_address().port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is not installed: apt-get install chromium chromium-driver");
        let profile = tempfile::tempdir().unwrap();
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            // Nothing but loopback can be reached, whatever a page asks for.
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        if dark {
            arguments.push("--force-dark-mode".to_owned());
            arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let options = json!({
            "goog:chromeOptions": {
                "args": arguments,
                // The window's own least width is more than a telephone's.
                "mobileEmulation": { "deviceMetrics": { "width": width, "height": height, "pixelRatio": 1.0, "touch": false } },
            },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let capabilities = options.as_object().unwrap().clone();
        let begin = Instant::now();
        let client = loop {
            let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
            let connected = builder
                .capabilities(capabilities.clone())
                .connect(&format!("http://127.0.0.1:{port}"))
                .await;
            match connected {
                Ok(client) => break client,
                Err(error) if begin.elapsed() > Duration::from_secs(30) => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        Self { driver, profile, client }
    }

    /// Waits until a script answers with true.
    pub(crate) async fn until(&self, what: &str, script: &str) {
        let begin = Instant::now();
        loop {
            let answer = self.client.execute(script, vec![]).await;
            if matches!(&answer, Ok(serde_json::Value::Bool(true))) {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "not seen: {what}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What a script answers with.
    pub(crate) async fn ask(&self, script: &str) -> serde_json::Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    /// Takes a picture of what is to be seen.
    pub(crate) async fn picture(&self, place: &Path) {
        std::fs::write(place, self.client.screenshot().await.unwrap()).unwrap();
    }

    /// Closes the browser.
    pub(crate) async fn close(mut self) {
        self.client.clone().close().await.unwrap();
        self.driver.kill().ok();
        self.driver.wait().ok();
        drop(self.profile);
    }
}
