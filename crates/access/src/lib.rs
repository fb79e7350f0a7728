//! Authentication and authorization: tenants, how callers authenticate, and the permissions that
//! roles grant.
//!
//! A source serves its route with [`Gate::access`], which decides before the handler runs and gives
//! the handler the caller. The credentials of a request must be valid for the tenant that the request
//! names (by a parameter of its path, or by a header). A request that names no tenant belongs to all
//! tenants that its credentials are valid for. A reload builds new [`Tenants`] as a whole and swaps
//! them in while requests go on.
#![warn(unreachable_pub)]
// Tests may do all of this.
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

mod access;
mod cache;
mod check;
pub mod config;
mod digest;
mod fetch;
mod gate;
mod indices;
mod limits;
mod login;
mod named;
mod networks;
pub mod observatorium;
mod opa;
mod pages;
mod proof;
mod roles;
mod shown;
mod tenants;
#[cfg(test)]
mod testing;
mod trouble;

pub use access::AccessConfig;
pub use config::{BindingConfig, OpaConfig, RoleConfig, TenantConfig, TenantSettings};
pub use gate::{Gate, LOGIN_PATH};
pub use limits::LimitsConfig;
pub use tenants::{Settings, Tenants};
pub use trouble::{AsideTenant, FailingIssuer, Trouble};
