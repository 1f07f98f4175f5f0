//! Signals, kept from threads that are not the server's own.
//!
//! A thread inherits the signal mask of its creator, and PostgreSQL's handlers must run on the main thread only.

use nix::sys::signal::{SigSet, SigmaskHow};
use std::io;

/// Blocks all signals of this thread until dropped. Threads that are started meanwhile keep them blocked.
pub struct SignalsBlocked(SigSet);

impl SignalsBlocked {
    /// Blocks them.
    ///
    /// # Errors
    /// The system's, which knows this way to set the mask: none is to be expected.
    pub fn new() -> io::Result<Self> {
        Ok(SignalsBlocked(SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?))
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // Setting a mask that was in force before cannot fail.
        let _ = self.0.thread_set_mask();
    }
}
