//! Harness for tests of the whole program.
//!
//! The product runs as a process of its own ([`Metrifold`]) between senders ([`Sender`], [`Load`])
//! and scripted endpoints ([`Endpoint`]), or beside real peers ([`peers`]). Everything blocks and
//! is on loopback, and every wait has a bound and says what it waited for. This crate reads and
//! writes the protocols with messages of its own ([`messages`]), so that it does not repeat faults
//! of the product's codec. Code that is shipped must never depend on it.

#![allow(missing_docs, reason = "the names of these helpers say what they do")]

mod address;
pub mod aiven;
mod authority;
mod browser;
pub mod cloud_foundry;
mod command;
pub mod config;
pub mod consul;
pub mod edits;
mod endpoint;
mod http;
pub mod issuer;
pub mod kubernetes;
mod load;
pub mod messages;
mod metrifold;
pub mod peers;
mod process;
mod random;
mod s3;
mod sender;
pub mod series;
mod volume;
mod wait;

pub use address::{free_address, is_closed, nobody};
pub use authority::Authority;
pub use browser::Browser;
pub use cloud_foundry::CloudFoundry;
pub use command::{alone, cli, run};
pub use endpoint::{Does, Endpoint, Manner, Reply, Seen, hanging};
pub use http::{Answer, base64, encode, fetch, get, request};
pub use kubernetes::Kubernetes;
pub use load::{Load, Sent};
pub use metrifold::Metrifold;
pub use process::Process;
pub use random::Random;
pub use s3::S3;
pub use sender::{Sender, expect, write, write_again};
pub use series::{Series, body, body_v2, compress, one, protobuf, up, ups};
pub use volume::Volume;
pub use wait::{Deadline, PATIENCE, StopOnPanic, until, until_so};
