//! HTTP in and out: shared listeners, TLS, authentication, the client of the data path.

use std::net::SocketAddr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    pub path: String,
}
#[derive(Clone, Default)]
pub struct Listeners {}
