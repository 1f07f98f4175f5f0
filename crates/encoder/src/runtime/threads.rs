//! Threads that take no signals.
//!
//! Every thread of ours, and every thread that ONNX Runtime starts, is created while all signals are blocked.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use imgvec_codecs::SignalsBlocked;

use super::RuntimeError;
use crate::interrupt::InterruptCheck;

/// Stack of our threads. Loading a deep graph recurses over it, and only touched pages count.
const STACK_BYTES: usize = 8 << 20;
/// How often a caller that waits for a worker looks at its interrupt check.
const POLL: Duration = Duration::from_millis(10);

/// Starts a thread that takes no signals.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RuntimeError> {
    let failed = |error: io::Error| RuntimeError::Thread { reason: error.to_string() };
    let _blocked = SignalsBlocked::new().map_err(failed)?;
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work).map_err(failed)
}

/// Runs `work` on a thread that takes no signals, so that the threads it creates take none either,
/// and waits for it. The caller keeps taking signals: blocking them here instead would also keep a
/// cancel request from arriving while a large graph loads. When `interrupt` returns true, `cancel` is
/// called once; `work` is waited for in any case, since a thread inside ONNX Runtime must not outlive
/// the process's exit handlers.
pub(super) fn run<T: Send + 'static>(
    name: &str,
    interrupt: InterruptCheck,
    cancel: impl FnOnce(),
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RuntimeError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let thread = spawn(name, move || {
        // The receiver waits until this arrives.
        let _ = sender.send(work());
    })?;
    let mut cancel = Some(cancel);
    let result = loop {
        match receiver.recv_timeout(POLL) {
            Ok(result) => break Some(result),
            Err(RecvTimeoutError::Timeout) => {
                if cancel.is_some()
                    && interrupt()
                    && let Some(cancel) = cancel.take()
                {
                    cancel();
                }
            }
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    let joined = thread.join();
    match (result, joined) {
        (Some(result), _) => Ok(result),
        (None, Err(panic)) => std::panic::resume_unwind(panic),
        (None, Ok(())) => Err(RuntimeError::Thread { reason: "the thread ended early".to_owned() }),
    }
}
