//! How many files and connections the process may have open at once.

/// The share of them that the callers of one listener may take by default: the others are for files
/// of queues, for connections to endpoints, and for other listeners.
const SHARE: usize = 4;

/// The most connections of a listener by default.
const MOST: usize = 1024;

/// Raises the limit as far as the system lets this process. Shells and init systems set a low one
/// for the sake of programs that cannot handle more than 1024; what a process may ask for is mostly
/// far more. Returns the limit of now; none if there is none.
pub fn raise() -> Option<usize> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            // Refused where the hard limit is above what the kernel takes: then it stays.
            let raised = Rlimit {
                current: limit.maximum,
                ..limit
            };
            let _ = setrlimit(Resource::Nofile, raised);
        }
    }
    self::limit()
}

/// How many may be open at once; none if nothing is known of a limit.
pub(crate) fn limit() -> Option<usize> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        let limit = getrlimit(Resource::Nofile).current;
        limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }
    #[cfg(not(unix))]
    None
}

/// The most connections of a listener for which none are configured.
pub(crate) fn default_connections(limit: Option<usize>) -> usize {
    limit.map_or(MOST, |limit| (limit / SHARE).clamp(1, MOST))
}

/// Whether a listener may be configured to have so many: at most three quarters of all.
pub(crate) fn leave_room(connections: usize, limit: Option<usize>) -> bool {
    limit.is_none_or(|limit| connections <= limit - limit / SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_leave_room_for_files() {
        assert_eq!(default_connections(None), 1024);
        assert_eq!(default_connections(Some(1 << 20)), 1024);
        assert_eq!(default_connections(Some(1024)), 256);
        assert_eq!(default_connections(Some(3)), 1);
        assert!(leave_room(768, Some(1024)) && !leave_room(769, Some(1024)));
        assert!(leave_room(usize::MAX, None));
    }

    #[test]
    fn the_limit_is_known_and_not_lowered() {
        let before = limit();
        let raised = raise();
        assert_eq!(raised, limit());
        assert!(raised.unwrap_or(usize::MAX) >= before.unwrap_or(usize::MAX));
    }
}
