//! `throng load`: a crowd of clients against any WebSocket server.

use crate::args::LoadArgs;
use crate::failure::Failure;

pub(crate) fn run(_args: &LoadArgs) -> Result<(), Failure> {
    Err(Failure::could_not_run("this build has no crowd in it"))
}
