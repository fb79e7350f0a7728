//! The signal to stop.

use tokio::sync::watch;

/// The sending side of the stop signal. Dropping it fires the signal, too.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

/// The receiving side of the stop signal.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl ShutdownTrigger {
    /// A trigger and its first receiver.
    pub fn new() -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Shutdown(receiver))
    }

    /// Another receiver.
    pub fn listener(&self) -> Shutdown {
        Shutdown(self.0.subscribe())
    }

    /// Fires the signal.
    pub fn fire(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Waits for the signal.
    pub async fn wait(&mut self) {
        // An error means that the trigger was dropped, which fires the signal as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether the signal was fired.
    pub fn is_set(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}
