//! A WebSocket server on axum, as its documentation writes one.

use axum::Router;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::routing::{any, get};

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let port: u16 = std::env::args().nth(1).expect("a port").parse().expect("a port");
    let upgrade = |ws: WebSocketUpgrade| async { ws.on_upgrade(hold) };
    let app = Router::new().route("/", get(|| async { "ok" })).route("/ws", any(upgrade));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port");
    axum::serve(listener, app).await.expect("it serves");
}

async fn hold(mut socket: WebSocket) {
    while let Some(Ok(_)) = socket.recv().await {}
}
