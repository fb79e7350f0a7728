//! A bound shared by many, which none of them can fill alone.
//!
//! The rule is that of dynamic thresholds (Choudhury and Hahne, "Dynamic queue length thresholds
//! for shared-memory packet switches", 1998): each may have a multiple of what is free, so a single
//! user gets at most eight ninths of the bound, and there is always room for a new one.

/// Multiple of the free part that one user may have.
const SHARE: u64 = 8;

/// Whether a user that has `own` may take `more`, with `free` left after that. A user that has
/// nothing is never refused.
pub fn within_share(own: u64, more: u64, free: u64) -> bool {
    own == 0 || own.saturating_add(more) <= SHARE.saturating_mul(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_gets_eight_ninths_and_one_who_has_nothing_gets_in() {
        let (bound, step) = (900, 10);
        let mut own = 0;
        while own + step <= bound && within_share(own, step, bound - own - step) {
            own += step;
        }
        assert_eq!(own, 800);
        assert!(within_share(0, 50, 50));
        assert!(!within_share(1, 50, 0));
    }
}
