//! The limit on the process's open files and connections.

/// Divisor of the limit for one listener's default number of connections: the rest is for files of
/// queues, connections to endpoints, and other listeners.
const SHARE: usize = 4;

/// Largest default number of connections of a listener.
const MOST: usize = 1024;

/// Raises the soft limit to the hard one. Shells and init systems set a low soft limit for the sake
/// of programs that cannot handle more than 1024; the hard limit is usually far higher. Returns the
/// new limit; `None` if unlimited.
pub fn raise() -> Option<usize> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            // Refused if the hard limit exceeds the kernel's bound; then the soft limit stays.
            let raised = Rlimit {
                current: limit.maximum,
                ..limit
            };
            let _ = setrlimit(Resource::Nofile, raised);
        }
    }
    self::limit()
}

/// The soft limit; `None` if it is unlimited or unknown.
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

/// Default number of connections of a listener.
pub(crate) fn default_connections(limit: Option<usize>) -> usize {
    limit.map_or(MOST, |limit| (limit / SHARE).clamp(1, MOST))
}

/// Whether a configured number of connections is acceptable: at most three quarters of the limit.
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
