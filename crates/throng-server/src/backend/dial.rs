//! Opens a connection to what the configuration names, and pays for looking its name up.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use throng_limits::{Budget, Lane, Permit};
use tokio::net::TcpStream;

/// How long resolving waits until its descriptors are to be had.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(1);
/// How often it looks.
const RESOLVE_LOOK: Duration = Duration::from_millis(10);

/// Resolving opens files and sockets of its own, on a thread of which there are few.
async fn pay_for_resolving(budget: &Budget) -> Result<[Permit; 2], String> {
    let pay = async {
        loop {
            let take = || budget.try_take(Lane::Files);
            if let (Some(first), Some(second)) = (take(), take()) {
                return [first, second];
            }
            tokio::time::sleep(RESOLVE_LOOK).await;
        }
    };
    tokio::time::timeout(RESOLVE_PATIENCE, pay).await.map_err(|_| {
        "has a name, and no descriptor is left to resolve it; raise the limit of this process, or \
         write the address instead of the name"
            .to_owned()
    })
}

/// The one place where a descriptor for somebody else's server is opened; the caller has paid for it.
/// The error is a sentence whose subject is the server.
pub(crate) async fn dial(host: &str, port: u16, budget: &Budget) -> Result<TcpStream, String> {
    let addresses: Vec<SocketAddr> = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => {
            let paid = pay_for_resolving(budget).await?;
            let addresses = tokio::net::lookup_host((host, port)).await;
            drop(paid);
            addresses
                .map_err(|error| format!("has a name that cannot be resolved: {error}"))?
                .collect()
        }
    };
    let mut last = "has a name without an address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => {
                // Without it an answer may come 40 ms later; with it nothing is lost.
                socket.set_nodelay(true).ok();
                return Ok(socket);
            }
            Err(error) => last = format!("cannot be connected to at {address}: {error}"),
        }
    }
    Err(last)
}
