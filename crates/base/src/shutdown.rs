//! The signal to stop.

use tokio::sync::watch;

/// Tells components to stop. Dropping it tells them, too.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

/// Learns when to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl ShutdownTrigger {
    /// A trigger and its first listener.
    pub fn new() -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Shutdown(receiver))
    }

    /// One more listener.
    pub fn listener(&self) -> Shutdown {
        Shutdown(self.0.subscribe())
    }

    /// Tells all listeners.
    pub fn fire(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Waits until it is time to stop.
    pub async fn wait(&mut self) {
        // An error says that the trigger is gone, which means the same.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether it is time to stop.
    pub fn is_set(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}
