//! What a store holds that is not on disk yet, and whether what comes goes there.

use metrifold_queue::Lane;

use super::super::holdings::Held;
use super::Store;

impl Store {
    /// Whether what comes of a lane goes to disk at once.
    pub(in super::super) fn is_writing(&self, lane: &Lane) -> bool {
        let state = self.state();
        let fails = || self.is_failing() || state.backlog.is_paused(&lane.tenant);
        state.backlog.holds_back(lane) || (self.keeps() && fails())
    }

    /// Counts it. What is on disk the disk counts.
    pub(in super::super) fn count(&self, held: &mut Held) {
        let state = self.state();
        let copying = state.copied.values().filter_map(|it| it.fresh.as_ref());
        for fresh in state.fresh.values().chain(copying) {
            held.add(fresh.batch.tenant(), fresh.tally, Some(fresh.since));
        }
        for direct in state.direct.values() {
            held.add(direct.batch.tenant(), direct.tally, None);
        }
    }
}
