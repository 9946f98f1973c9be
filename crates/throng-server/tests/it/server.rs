//! A server in a thread of the test, and a witness who must notice nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use throng_server::config::{Sources, load};
use throng_server::log::{Format, Level, Log};
use throng_server::restart::manager::Manager;
use throng_server::{ServeError, ServeOptions, serve_until};
use tokio::sync::oneshot;

use crate::client::{Client, api};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The key of every test's server API.
pub(crate) const KEY: &str = "test-key";

const BASE: &str = r#"
http_server.address = "127.0.0.1"
http_server.port = 0
http_api.key = "test-key"
client.token.hmac_secret_key = "test-secret"
limits.shards = 2
limits.close_timeout = "1s"
shutdown.spread = "50ms"
"#;

const WITNESS: &str = r#"
[[channel.namespaces]]
name = "witness"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#;

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
    lines: Arc<Mutex<Vec<u8>>>,
    witness: Option<Client>,
    witnessed: u32,
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Server {
    /// Starts a server with these options, and a witness who is connected all the while.
    pub(crate) fn start(toml: &str) -> Self {
        let mut server = Self::without_witness(toml);
        let mut witness = Client::connect(server.address);
        witness.say(r#"{"id":1,"connect":{}}"#);
        witness.hear();
        witness.say(r#"{"id":2,"subscribe":{"channel":"witness:all"}}"#);
        assert_eq!(witness.hear(), r#"{"id":2,"subscribe":{}}"#);
        server.witness = Some(witness);
        server
    }

    pub(crate) fn without_witness(toml: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("throng-it-{}-{number}.toml", std::process::id());
        let file = std::env::temp_dir().join(name);
        let anonymous = "client.allow_anonymous_connect_without_token = true\n";
        let anonymous = if toml.contains("allow_anonymous_connect") { "" } else { anonymous };
        std::fs::write(&file, format!("{BASE}{anonymous}{toml}\n{WITNESS}")).unwrap();
        let loaded = load(Sources { file: Some(file.clone()), ..Sources::default() });
        std::fs::remove_file(&file).unwrap();
        let settings = loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.problems));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Log::to(Level::Info, Format::Text, Box::new(Lines(Arc::clone(&lines)))).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let options = ServeOptions {
                settings,
                any_port: false,
                command: "throng".to_owned(),
                program: None,
                watched_by: Manager::None,
                source: None,
            };
            let started = |started: &throng_server::Started| tell.send(started.address).unwrap();
            // A test that failed drops the sender, which ends the server as well.
            serve_until(options, &log, started, async { drop(stopped.await) })
        });
        let address = told.recv_timeout(PATIENCE).unwrap();
        let (stop, thread) = (Some(stop), Some(thread));
        Self { address, stop, thread, lines, witness: None, witnessed: 0 }
    }

    /// A publication reaches the witness: nothing that happened has touched it.
    pub(crate) fn witness(&mut self) {
        let Some(witness) = &mut self.witness else { return };
        self.witnessed += 1;
        let number = self.witnessed;
        let body = format!(r#"{{"channel":"witness:all","data":{number}}}"#);
        assert_eq!(api(self.address, "publish", &body), r#"{"result":{}}"#);
        let push = format!(r#"{{"push":{{"channel":"witness:all","pub":{{"data":{number}}}}}}}"#);
        assert_eq!(witness.hear(), push);
    }

    /// Waits for a line of the log.
    pub(crate) fn logged(&self, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(line) {
            assert!(Instant::now() < deadline, "no {line:?} in {}", self.log());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8(self.lines.lock().unwrap().clone()).unwrap()
    }

    /// Asks the server API again and again until it says this.
    pub(crate) fn becomes(&self, method: &str, body: &str, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = api(self.address, method, body);
            if answer.contains(wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{method} {body} says {answer}, not {wanted}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Ends the server in good order, after a last look at the witness.
    pub(crate) fn stop(mut self) -> String {
        self.witness();
        drop(self.stop.take());
        if let Some(witness) = &mut self.witness {
            assert_eq!(witness.close().0, 3001);
        }
        self.witness = None;
        let thread = self.thread.take().unwrap();
        thread.join().unwrap().unwrap();
        self.log()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}
