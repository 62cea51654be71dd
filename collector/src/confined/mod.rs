//! A process of its own for all that guests' bytes are parsed by.
//!
//! The recorder may read every guest's memory, and so must not be what trips over it. It starts this program once more
//! for each guest that it looks into ([`serve`]): that process has given up everything but its own memory and one
//! socket before it sees the first byte ([`fence`]). It asks for pages, which the recorder reads for it from that one
//! guest, and says what it found. What it says is as untrusted as the guest is, but it is plain data ([`messages`]).
//!
//! A process for each guest, and not one for all: what takes over one of them can lie about its own guest alone.

mod fence;
mod looking;
pub(crate) mod messages;
mod packed;
mod pages;

use std::{
    fs, io,
    os::{fd::AsFd, unix::net::UnixStream},
    rc::Rc,
};

use self::{
    looking::Looking,
    messages::{Question, Said},
    pages::Pages,
};

/// Looks into one guest for whoever has the other end of standard input, a socket, until that is closed.
///
/// Gives up all that this process could do otherwise, and fails before it has read anything if it can't.
pub fn serve() -> io::Result<()> {
    // For those who look at a list of processes. Nothing depends on it.
    let _ = fs::write("/proc/self/comm", "xenoscope-guest");
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    fence::close()?;
    let socket = Rc::new(socket);
    let mut looking = Looking::default();
    while let Some(question) = messages::receive_or_end::<Question>(&*socket)? {
        let memory = Pages::new(socket.clone(), question.frames);
        let answer = looking.answer(&question, &memory);
        messages::send(&*socket, &Said::Answer(Box::new(answer)))?;
    }
    Ok(())
}
