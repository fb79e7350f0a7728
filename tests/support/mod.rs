//! What the tests that run the binary share: child processes that end with the test, a small HTTP
//! client, an endpoint that records what it is sent, and a model of remote write in which both
//! versions can be compared.

#![allow(dead_code, reason = "each test file uses its part of it")]

pub mod endpoint;
pub mod http;
pub mod model;
pub mod peers;
pub mod process;
