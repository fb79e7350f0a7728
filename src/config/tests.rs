use crate::http::Listen;

/// A listener for tests.
pub(super) fn listen(address: &str, path: &str) -> Listen {
    Listen {
        address: address.parse().unwrap(),
        path: path.to_owned(),
    }
}
