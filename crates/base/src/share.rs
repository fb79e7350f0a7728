//! The rule by which many share a bound, so that one alone cannot fill it.
//!
//! It is that of dynamic thresholds (Choudhury and Hahne, "Dynamic queue length thresholds for
//! shared-memory packet switches", 1998): each may have a multiple of what is free, so one alone
//! gets eight ninths of the bound, and there is room for one who has nothing yet.

/// How many times what is free one may have.
const SHARE: u64 = 8;

/// Whether `more` is within the share of one who has `own`, when `free` is left after that. Who has
/// nothing yet is not refused for its share.
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
