//! Every registered component in one suite, in the built program.
//!
//! Registration puts a component into the suite: [`recipes`] has its minimal configuration and what
//! counts as delivered, and a component without a recipe fails. A case asks the same of all
//! components of a plane; where it does not apply, the reason is printed.

mod balance;
mod lifecycle;
mod panics;
mod pressure;
mod recipes;
mod rig;
mod secrets;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

// Linked so that the components register themselves.
use metrifold as _;
use metrifold_engine::component::ComponentInfo;

use recipes::{RECIPES, Recipe};

/// Result of a case: success, or the reason why it does not apply. A failing case panics.
type Case = Result<(), &'static str>;

/// Runs a case with every recipe, and fails with the names of all recipes that it fails for.
#[track_caller]
fn each(case: impl Fn(&'static Recipe) -> Case) {
    let (mut held, mut failed) = (0, Vec::new());
    for recipe in RECIPES {
        match catch_unwind(AssertUnwindSafe(|| case(recipe))) {
            Ok(Ok(())) => held += 1,
            Ok(Err(reason)) => println!("{}: {reason}", recipe.title()),
            Err(_) => failed.push(recipe.title()),
        }
    }
    assert!(failed.is_empty(), "it does not hold for {failed:?}");
    assert!(held > 0, "it applies to nothing");
}

/// The component type of a recipe.
fn info(recipe: &Recipe) -> &'static ComponentInfo {
    let mut all = inventory::iter::<ComponentInfo>.into_iter();
    let found = all.find(|info| info.kind == recipe.kind && info.name == recipe.name);
    found.unwrap_or_else(|| panic!("there is no component {}", recipe.title()))
}

#[test]
fn every_registered_component_has_a_recipe_and_no_other_has() {
    let all = inventory::iter::<ComponentInfo>.into_iter();
    let registered: BTreeSet<_> = all
        .map(|info| format!("{}.{}", info.kind.table(), info.name))
        .collect();
    let known: BTreeSet<_> = RECIPES.iter().map(Recipe::title).collect();
    let lacking: Vec<_> = registered.difference(&known).collect();
    assert!(
        lacking.is_empty(),
        "{lacking:?} run through no conformance case: add a recipe for each to RECIPES in \
         tests/conformance/recipes.rs, which says its plane, the keys that it needs, a key whose \
         change replaces it, and where what it passes on arrives"
    );
    let gone: Vec<_> = known.difference(&registered).collect();
    assert!(gone.is_empty(), "{gone:?} are not registered: remove them");
}
