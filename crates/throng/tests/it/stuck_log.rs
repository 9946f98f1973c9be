//! A log that nobody reads, or that has no room, costs lines and never a delivery.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use throng_load::client::{Client, Manner};

use crate::{Dir, command};

const PATIENCE: Duration = Duration::from_secs(20);
const MESSAGES: usize = 500;

/// A server of the real binary; killed when the test is over.
struct Running {
    child: Child,
    port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may have ended
        self.child.wait().ok();
    }
}

impl Running {
    /// Starts with this as its stderr, and waits until it lets a client in.
    fn start(dir: &Dir, config: &str, stderr: Stdio) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!(
            "[http_server]\naddress = \"127.0.0.1\"\nport = {port}\n[client]\ninsecure = true\n\
             [http_api]\ninsecure = true\n{config}"
        );
        dir.write("throng.toml", &text);
        let mut command = command(&dir.0, &["serve", "-c", "throng.toml"]);
        let child = command.stderr(stderr).stdout(Stdio::null()).spawn().unwrap();
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/connection/websocket", self.port)
    }

    /// A connected client, as soon as the server listens.
    fn client(&self) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Client::connect(&self.url(), &Manner::default()) {
                Ok(mut client) => {
                    client.greet("", PATIENCE).unwrap();
                    return client;
                }
                // Nothing tells from outside when a server whose log is stuck listens.
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        }
    }

    /// Gives the log something to say again and again, and sees every publication arrive.
    fn delivers(&self) {
        let mut reader = self.client();
        reader.subscribe("news", PATIENCE).unwrap();
        let mut writer = self.client();
        for number in 0..MESSAGES {
            writer.command("subscribe", r#"{"channel":"unknown:x"}"#, PATIENCE).unwrap_err();
            let publish = format!(r#"{{"channel":"news","data":{number}}}"#);
            writer.command("publish", &publish, PATIENCE).unwrap();
            let line = reader.next_line(PATIENCE).unwrap().expect("a publication");
            assert!(line.contains(&format!(r#""data":{number}"#)), "{line}");
        }
    }
}

#[test]
fn every_delivery_arrives_while_nobody_reads_the_log() {
    let dir = Dir::new();
    let (reader, mut writer) = std::io::pipe().unwrap();
    // pipe(7): 65,536 bytes fill it, and the server's first line would block for ever.
    writer.write_all(&[b'\n'; 65_536]).unwrap();
    let server = Running::start(&dir, "", writer.into());
    server.delivers();
    // When somebody reads again, the log goes on and tells what it could not say.
    let lines = BufReader::new(reader).lines();
    let said = lines.map_while(Result::ok).find(|line| line.contains("102 "));
    assert!(said.is_some(), "the refusals are told");
}

#[test]
fn every_delivery_arrives_while_the_logs_disk_is_full() {
    let dir = Dir::new();
    let stderr = File::create("/dev/null").unwrap();
    let server = Running::start(&dir, "[log]\nfile = \"/dev/full\"\n", stderr.into());
    server.delivers();
}
