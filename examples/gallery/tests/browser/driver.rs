//! A browser, driven through the WebDriver protocol: JSON over HTTP to a program of the browser's own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);
/// The name under which the protocol gives an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Chromium without a window. Dropping it ends it.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    /// `None` where there is no Chromium or no driver of it.
    pub fn start(profile: &Path) -> Option<Self> {
        let chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
        let chromium = chromium.into_iter().find(|path| Path::new(path).exists())?;
        let driver =
            Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut driver = driver.ok()?;
        let mut lines = BufReader::new(driver.stdout.take().expect("its output was asked for")).lines();
        let port = lines.find_map(|line| {
            let line = line.ok()?;
            line.strip_suffix('.')?.rsplit_once("on port ")?.1.parse().ok()
        });
        let port = port.expect("chromedriver tells its port");
        // It goes on writing; nobody reads that.
        std::mem::forget(lines);
        let _ = fs::remove_dir_all(profile);
        fs::create_dir_all(profile).expect("a profile's directory can be made");
        let data = format!("--user-data-dir={}", profile.display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            &data,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let mut browser = Self { driver, port, session: String::new() };
        let answer = browser.send("POST", "/session", &wanted);
        browser.session = answer["sessionId"].as_str().expect("a session has an id").to_owned();
        Some(browser)
    }

    /// Opens an address and waits until it is loaded.
    pub fn open(&self, address: &str) {
        self.of_session("POST", "url", &json!({ "url": address }));
    }

    /// What a function's body returns.
    pub fn script(&self, body: &str) -> Value {
        self.of_session("POST", "execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// Waits until an expression is true.
    ///
    /// # Panics
    /// If it is not within a minute; with the text of the page.
    pub fn wait_until(&self, expression: &str) {
        let begin = Instant::now();
        while self.script(&format!("return !!({expression})")) != json!(true) {
            if begin.elapsed() > TIMEOUT {
                let text = self.script("return location.href + '\\n' + document.body.innerText");
                panic!(
                    "{expression} does not become true on the page\n{}",
                    text.as_str().unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    /// Types into an element as a person does; of an input for files, chooses files (one path a line).
    pub fn type_into(&self, selector: &str, text: &str) {
        let found =
            self.of_session("POST", "element", &json!({ "using": "css selector", "value": selector }));
        let element = found[ELEMENT].as_str().unwrap_or_else(|| panic!("no element {selector}")).to_owned();
        self.of_session("POST", &format!("element/{element}/value"), &json!({ "text": text }));
    }

    /// Width and height of the page.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.of_session(
            "POST",
            "goog/cdp/execute",
            &json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": size }),
        );
    }

    /// Light or dark, as the system would say.
    pub fn set_dark(&self, is_dark: bool) {
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.of_session(
            "POST",
            "goog/cdp/execute",
            &json!({ "cmd": "Emulation.setEmulatedMedia", "params": media }),
        );
    }

    /// The page as JPEG, in base64.
    pub fn screenshot(&self) -> String {
        let wanted =
            json!({ "cmd": "Page.captureScreenshot", "params": { "format": "jpeg", "quality": 82 } });
        let answer = self.of_session("POST", "goog/cdp/execute", &wanted);
        answer["data"].as_str().expect("a screenshot is a text").to_owned()
    }

    /// What the browser complained about since the last call: errors of scripts, and what the page's policy forbade.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.of_session("POST", "se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().cloned().unwrap_or_default();
        let severe = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn of_session(&self, method: &str, path: &str, body: &Value) -> Value {
        self.send(method, &format!("/session/{}/{path}", self.session), body)
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, text) = request(
            self.port,
            method,
            path,
            &[("Content-Type", "application/json")],
            body.to_string().as_bytes(),
        );
        let answer: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {status} {text}"));
        let value = &answer["value"];
        assert!(status == 200, "{method} {path} {body}: {}", value["message"].as_str().unwrap_or(&text));
        value.clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.send("DELETE", &format!("/session/{}", self.session), &json!({}));
        } else if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            // A second panic would hide the first.
            let _ = write!(stream, "GET /shutdown HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let _ = stream.read(&mut [0; 64]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Status and body of a request to this machine.
pub fn request(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the program listens");
    let host = if headers.iter().any(|(name, _)| *name == "Host") {
        String::new()
    } else {
        format!("Host: localhost:{port}\r\n")
    };
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\n{host}{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("a request can be sent");
    // Who refuses a body may close before it is sent.
    let _ = stream.write_all(body);
    // The driver leaves the connection open, whatever it was asked: the length says where the answer ends.
    stream.set_read_timeout(Some(TIMEOUT)).expect("a time is no error");
    let mut answer = Vec::new();
    let mut buffer = [0; 1 << 16];
    while !is_whole(&answer) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Whether an answer has all the bytes that its head promises.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= end + 4 + length)
}
