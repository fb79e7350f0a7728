//! Listening sockets, and taking over a port from a listener on an overlapping address.
//!
//! `0.0.0.0:9201` and `127.0.0.1:9201` cannot be listened on at once. When one replaces the other,
//! the new one must be bound before the old one closes. Meanwhile both share the port: the new
//! socket is bound, but gets no connection from the kernel before it listens, which cannot fail
//! then.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait to be accepted, up to the kernel's own limit.
const BACKLOG: i32 = 4096;

/// Listens at an address. Accepts no connections.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // With the standard library's backlog of 128, further callers would retry after a second only.
    let socket = open(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether two addresses exclude each other on one port; `[::]` includes IPv4.
pub fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let all = |ip: IpAddr| ip.is_ipv6() && ip.is_unspecified();
    if all(a) || all(b) {
        return true;
    }
    let (a, b) = (a.to_canonical(), b.to_canonical());
    a == b || (a.is_ipv4() && b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
}

/// Binds an address that overlaps with others that share their port. Does not listen yet.
pub(super) fn reserve(address: SocketAddr) -> io::Result<Socket> {
    let socket = open(address)?;
    share_port(&SockRef::from(&socket), true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let (domain, protocol) = (Domain::for_address(address), Protocol::TCP);
    let socket = Socket::new(domain, Type::STREAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // On other systems, the option would allow another process to take the address.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Makes a reserved socket listen. It has the port to itself once the others are closed.
pub(super) fn listen_at_last(socket: &Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    share_port(&SockRef::from(socket), false)?;
    Ok(socket.try_clone()?.into())
}

/// Allows or forbids other sockets with this option to share the port.
#[cfg(unix)]
pub(super) fn share_port(socket: &SockRef<'_>, share: bool) -> io::Result<()> {
    socket.set_reuse_port(share)
}

/// Other systems have no revocable sharing of a port.
#[cfg(not(unix))]
pub(super) fn share_port(_: &SockRef<'_>, _: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
