//! Ctrl-C and SIGTERM, and the end of the program under a stage that still computes. Decides nothing about stages: a
//! command passes in what the first signal stops.

use agrpo_programs::end_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch::{Receiver, channel};

use crate::exit::{Exit, Failure, cannot};
use crate::{output, telemetry};

/// Turns true at the first Ctrl-C or SIGTERM, after `announce`; the second one ends the program.
pub(crate) fn stop_signal(announce: fn()) -> Result<Receiver<bool>, Failure> {
    let (stop, stopped) = channel(false);
    on_signals(move |first| {
        if first {
            announce();
            stop.send_replace(true);
        } else {
            output::talk("stopped at once");
            end_at_once(Exit::Interrupted);
        }
    })?;
    Ok(stopped)
}

/// Calls `handle` at the first Ctrl-C or SIGTERM with true, and with false at those that follow.
pub(crate) fn on_signals(handle: impl Fn(bool) + Send + 'static) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(cannot("listen for signals"));
    let (mut interrupt, mut terminate) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    #[expect(clippy::disallowed_methods, reason = "lives until the program ends, and cannot fail")]
    let listener = tokio::spawn(async move {
        let mut first = true;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            handle(first);
            first = false;
        }
    });
    drop(listener);
    Ok(())
}

/// Ends the program where it stands. A stage may still be computing, on its thread and on others beside it: nothing waits
/// for them, and they would crash if libtorch were taken down under them, as a usual exit does.
pub(crate) fn end_at_once(exit: Exit) -> ! {
    end_all();
    telemetry::end();
    signal_hook::low_level::exit(i32::from(exit as u8))
}
