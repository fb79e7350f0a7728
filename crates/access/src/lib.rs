//! Who may do what: tenants, how a caller proves to be of one, and what roles let it do.
//!
//! A source asks for nothing but the caller: it serves its route with [`Gate::access`], which decides
//! before the handler runs. The tenant that a request names (by a parameter of its path, by a header)
//! must be one that its proof is good for; a request that names none is of all tenants that its proof
//! is good for. What is configured is built whole as [`Tenants`] and put in the place of what was
//! there, while requests go on.
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

mod cache;
mod check;
pub mod config;
mod digest;
mod fetch;
mod gate;
mod limits;
mod named;
mod networks;
pub mod observatorium;
mod opa;
mod proof;
mod roles;
mod shown;
mod tenants;
#[cfg(test)]
mod testing;

pub use config::{AccessConfig, BindingConfig, OpaConfig, RoleConfig, TenantConfig};
pub use gate::Gate;
pub use limits::LimitsConfig;
pub use tenants::{Settings, Tenants};
