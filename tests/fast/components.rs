//! The components of the product.

use metrifold_engine::component::ComponentInfo;

/// Summary of the components that tests register; they are linked with the others.
pub const FOR_TESTS: &str = "for tests";

/// Every component of the product.
pub fn components() -> impl Iterator<Item = &'static ComponentInfo> {
    let all = inventory::iter::<ComponentInfo>.into_iter();
    all.filter(|info| info.summary != FOR_TESTS)
}
