//! Addresses reserved for one test while it runs.
//!
//! An address is reserved by a socket that is bound with `SO_REUSEADDR` and does not listen. The
//! kernel never assigns the port of such a socket to another socket, neither to listen nor to
//! connect from. A program that names the port and sets `SO_REUSEADDR`, as the standard library and
//! Go do, can listen there, stop, and listen again. Connections in between are refused.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};

thread_local! {
    /// Addresses that the test on this thread has reserved. Each test has a thread of its own,
    /// which releases them when it ends.
    static RESERVED: RefCell<Vec<Socket>> = const { RefCell::new(Vec::new()) };
}

/// Reserves an address for the test on this thread. Nothing listens there until the test starts a
/// listener.
pub fn free_address() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    RESERVED.with_borrow_mut(|reserved| reserved.push(socket));
    address
}

/// The URL of an endpoint without a listener.
pub fn nobody() -> String {
    format!("http://{}/write", free_address())
}

/// Whether connections to the address are refused.
pub fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_reserved_address_is_refused_until_somebody_listens_and_again_afterwards() {
        let address = free_address();
        for _ in 0..2 {
            assert!(is_closed(address));
            let listener = TcpListener::bind(address).unwrap();
            assert!(!is_closed(address));
            assert!(TcpListener::bind(address).is_err(), "one listener only");
            drop(listener);
        }
        assert!(is_closed(address));
    }

    #[test]
    fn nobody_who_asks_for_any_port_is_given_a_reserved_one() {
        let reserved: HashSet<_> = (0..100).map(|_| free_address()).collect();
        assert_eq!(reserved.len(), 100);
        let any = || TcpListener::bind("127.0.0.1:0").unwrap();
        let others: Vec<_> = (0..500).map(|_| any()).collect();
        for other in &others {
            assert!(!reserved.contains(&other.local_addr().unwrap()));
        }
    }
}
