//! The components of the product.

use metrifold_engine::component::ComponentInfo;

/// How tests that register components of their own sum them up. They are linked with the others.
pub const FOR_TESTS: &str = "for tests";

/// Every component that is shipped.
pub fn components() -> impl Iterator<Item = &'static ComponentInfo> {
    let all = inventory::iter::<ComponentInfo>.into_iter();
    all.filter(|info| info.summary != FOR_TESTS)
}
