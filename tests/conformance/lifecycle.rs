//! Behaviour that every component shares, from start through reloads to shutdown.

use std::thread;

use metrifold_model::Signal;
use metrifold_testing::edits::{edit, post_expecting};
use metrifold_testing::{Process, free_address, until_so};

use crate::each;
use crate::recipes::{Arrives, Feeds, Recipe};
use crate::rig::{Place, Rig, once_released};

/// Number of units that are fed while something happens.
const MANY: i64 = 20;

#[test]
fn it_is_up_and_counts_what_goes_through_it() {
    each(|recipe| {
        let rig = Rig::start(recipe);
        let before = rig.passed();
        assert!(rig.feed(1));
        rig.until_arrived(1);
        assert_eq!(rig.subject("component_up"), 1.0);
        assert_eq!(rig.subject("component_restarts_total"), 0.0);
        until_so("it is counted", || rig.passed() > before);
        Ok(())
    });
}

#[test]
fn a_change_elsewhere_leaves_it_as_it_is() {
    each(|recipe| {
        let place = Place::new();
        let aside = free_address();
        let base = place.config(recipe, &(recipe.keys)(&place), "");
        let config = |labels: usize| {
            format!(
                "{base}[sources.aside]\ntype = \"remote_write\"\naddress = \"{aside}\"\n\
                 max_labels_per_series = {labels}\n\
                 [sinks.aside_out]\ntype = \"blackhole\"\ninputs = [\"aside\"]\n"
            )
        };
        let rig = Rig::start_in(place, recipe, &config(7));
        assert!(rig.feed(1));
        rig.until_arrived(1);
        let before = rig.passed();
        edit(&rig, &config(7));
        post_expecting(
            &rig,
            200,
            "unchanged: the files match the running configuration",
        );
        edit(&rig, &config(8));
        post_expecting(&rig, 200, "applied: changed sources.aside");
        assert!(rig.feed(2));
        rig.until_arrived(2);
        until_so("its counts go on", || rig.passed() > before);
        assert_eq!(rig.subject("component_restarts_total"), 0.0);
        Ok(())
    });
}

#[test]
fn a_key_of_its_own_replaces_it_without_loss() {
    each(|recipe| {
        let Some(change) = recipe.change else {
            let keys = crate::info(recipe).keys();
            assert!(keys.is_empty(), "give its recipe a change");
            return Err("it has no keys that could change");
        };
        let place = Place::new();
        let keys = (recipe.keys)(&place);
        let [first, second] =
            [keys.clone(), change(&keys)].map(|keys| place.config(recipe, &keys, ""));
        let rig = Rig::start_in(place, recipe, &first);
        assert!(rig.feed(1));
        rig.until_arrived(1);
        // Units are in flight while the component is replaced, there and back again.
        let feeder = rig.feeder();
        let feeding = thread::spawn(move || (2..=MANY).all(|number| feeder.feed(number)));
        let changed = format!("applied: changed {}.subject", recipe.kind.table());
        for config in [&second, &first, &second] {
            edit(&rig, config);
            post_expecting(&rig, 200, &changed);
        }
        assert!(feeding.join().unwrap(), "everything is taken");
        let mut last = MANY;
        if recipe.arrives == Arrives::Page {
            // A new page starts empty and shows only what is written to it.
            last += 1;
            assert!(rig.feed(last));
        }
        rig.until_arrived(last);
        if recipe.arrives == Arrives::Endpoint && recipe.feeds == Feeds::Test {
            assert!((1..=MANY).all(|number| rig.has_arrived(number)));
        }
        assert_eq!(rig.subject("component_restarts_total"), 0.0);
        Ok(())
    });
}

#[test]
fn what_is_under_way_at_the_end_is_delivered() {
    each(|recipe| match recipe.arrives {
        Arrives::Endpoint => under_way(recipe),
        Arrives::Page => Err("its page goes with it"),
        _ => just_taken(recipe),
    });
}

/// The endpoint has the unit and has not answered yet.
fn under_way(recipe: &'static Recipe) -> crate::Case {
    let mut rig = Rig::start(recipe);
    rig.place.endpoint.now(once_released);
    let feeder = rig.feeder();
    let feeding = thread::spawn(move || feeder.feed(1));
    rig.place.endpoint.wait_requests(1);
    rig.signal("TERM");
    rig.until_logged("shutting down");
    rig.place.endpoint.release();
    drained(&mut rig);
    assert!(feeding.join().unwrap(), "who waits is answered");
    assert!(rig.has_arrived(1));
    Ok(())
}

/// The unit was accepted right before the shutdown.
fn just_taken(recipe: &'static Recipe) -> crate::Case {
    let mut rig = Rig::start(recipe);
    for number in 1..=MANY {
        assert!(rig.feed(number));
    }
    drained_after_term(&mut rig);
    match recipe.plane {
        // A rule file is read once it is noticed: after the next start at the latest.
        Signal::Rules => {
            rig.start_again();
            rig.until_arrived(MANY);
        }
        _ if recipe.arrives == Arrives::Nowhere => {}
        _ => assert!((1..=MANY).all(|number| rig.has_arrived(number))),
    }
    Ok(())
}

#[track_caller]
fn drained_after_term(process: &mut Process) {
    process.signal("TERM");
    drained(process);
}

/// Waits for the end of the process, which must leave nothing undelivered.
#[track_caller]
fn drained(process: &mut Process) {
    let status = process.wait();
    let log = process.log();
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("everything was delivered"), "{log}");
}
