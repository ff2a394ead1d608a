//! After a 101 both sides speak a protocol that the gateway does not read: bytes go both ways until both ends close.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// Joins the two connections once both have switched. `tracker` lets the end of the process wait for it.
pub(crate) fn join(client: OnUpgrade, origin: OnUpgrade, tracker: &TaskTracker) {
    tracker.spawn(async move {
        let (client, origin) = match tokio::try_join!(client, origin) {
            Ok(ends) => ends,
            Err(error) => return debug!(%error, "a side went away before it had switched protocols"),
        };
        let (mut client, mut origin) = (TokioIo::new(client), TokioIo::new(origin));
        match tokio::io::copy_bidirectional(&mut client, &mut origin).await {
            Ok((up, down)) => debug!(up, down, "tunnel closed"),
            Err(error) => debug!(%error, "tunnel broken"),
        }
    });
}
