//! HTTP servers and clients: shared listeners, TLS, authentication, the client of the data path.
//!
//! Sources claim a path with [`Listeners::route`] while they are built, and attach a [`Handler`]
//! with [`Route::serve`] once they run, together with the [`Access`] check of its callers. Sinks
//! send with a [`Client`] and authenticate with [`Credentials`]. This crate knows nothing of
//! batches or tenants.
#![warn(unreachable_pub)]
// Tests may use all of these.
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::expect_used,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used,
    )
)]

pub mod access;
pub mod answer;
pub mod auth;
pub mod body;
pub mod client;
mod describe;
pub mod descriptors;
mod events;
pub mod form;
pub mod hop_by_hop;
mod keys;
pub mod listener;
mod methods;
mod origin;
mod parts;
pub mod redirect;
pub mod rejection;
mod retry_after;
mod socket;
mod target;
#[cfg(test)]
mod testing;
mod timed;
pub mod tls;

pub use access::{Access, Doors, Everybody, Permission, Refusal};
pub use auth::{
    AuthError, Authorization, BasicAuth, Callers, Credentials, OAuth2, ProxyKeys, SecretFrom,
};
pub use body::{Body, BodyError, BoxError};
pub use client::{Client, ClientConfig, Reply, TransportError, TransportKind};
pub use describe::place;
pub use events::Event;
pub use keys::{AccessBy, ClientKeys, ListenerKeys, ServerKeys};
pub use listener::{Handler, Listen, Listeners, Request, Response, Route, Serving, TurnedAway};
pub use methods::Methods;
pub use origin::is_cross_site;
pub use parts::Parts;
pub use retry_after::retry_after;
pub use socket::overlap;
pub use tls::{ClientAuth, ClientTls, ServerTls, install_crypto_provider};
