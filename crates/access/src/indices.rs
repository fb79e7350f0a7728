//! Indices of tenants, of authentication methods or of roles.

/// Some indices: mostly one, which takes no memory of its own.
#[derive(Debug, Default)]
pub(crate) enum Indices {
    #[default]
    None,
    One(usize),
    Many(Vec<usize>),
}

impl Indices {
    pub(crate) fn push(&mut self, index: usize) {
        match self {
            Self::None => *self = Self::One(index),
            Self::One(first) => *self = Self::Many(vec![*first, index]),
            Self::Many(all) => all.push(index),
        }
    }

    /// Sorts the indices, each of which is kept once.
    pub(crate) fn sort(&mut self) {
        if let Self::Many(all) = self {
            all.sort_unstable();
            all.dedup();
            all.shrink_to_fit();
        }
    }

    pub(crate) fn as_slice(&self) -> &[usize] {
        match self {
            Self::None => &[],
            Self::One(index) => std::slice::from_ref(index),
            Self::Many(all) => all,
        }
    }
}

impl Extend<usize> for Indices {
    fn extend<T: IntoIterator<Item = usize>>(&mut self, indices: T) {
        indices.into_iter().for_each(|index| self.push(index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_stay_in_order() {
        let mut indices = Indices::default();
        assert_eq!(indices.as_slice(), [0_usize; 0]);
        for (index, all) in [(7, &[7][..]), (3, &[7, 3]), (5, &[7, 3, 5])] {
            indices.push(index);
            assert_eq!(indices.as_slice(), all);
        }
        indices.push(3);
        indices.sort();
        assert_eq!(indices.as_slice(), [3, 5, 7]);
    }
}
